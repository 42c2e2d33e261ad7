"""Describes a deployment: which server, which clients, on which ports, and where its files lie on each machine."""

import ipaddress
import re
from dataclasses import dataclass

from fmtda.domains.examples import DataError
from fmtda.domains.family import DataSpec, Family
from fmtda.domains.registry import FAMILIES, family
from fmtda.protocol.settings import SettingsError

HOST_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
)
CLIENT_NAME = re.compile(r"(?=.{1,64}$)[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.))*(?<!\.)")
"""As a domain's name anywhere, but without what a file's name, a unit's and a command line would have to quote."""

FOLDER = re.compile(r"/[^\s'\"%$\\]*")
LAST_PORT = 65535

CONNECTION = "fmtda"
"""What the SuperLink is called in the configuration of Flower's command line."""

DATA_DIR = "/data"
"""Where the data files lie, unless the user says."""

SUPERLINK_SERVICE = "fmtda-superlink"

INSTALLED = "/opt/fmtda"
"""Where the systemd units look for the machine's folder and, in `venv`, for the installed fmtda."""


@dataclass(frozen=True)
class Deployment:
    """Holds what the user asked for, checked.

    Parameters
    ----------
    server
        Name or address by which the clients reach the server.
    clients
        One name a SuperNode: the domain that it holds.
    data
        Family of the domains.
    data_dir
        Folder with the data files, on each machine; empty for embedded data.
    port
        Where the clients reach the server: the front's.
    node_port
        Where the first SuperNode talks to its own ClientApp, on its machine alone; the next one takes the next port,
        so that several fit on one machine.
    source
        The server's labelled domain; empty leaves it to the family.
    superlink_port
        Where the SuperLink listens, on the server's own loopback.

    Raises
    ------
    SettingsError
        Naming the option, what was given and what is allowed.
    """

    server: str
    clients: tuple[str, ...]
    data: str
    data_dir: str
    port: int = 8000
    node_port: int = 9094
    source: str = ""
    superlink_port: int = 8001

    def __post_init__(self) -> None:
        if not self.is_address and not HOST_NAME.fullmatch(self.server):
            raise SettingsError(f"--server {self.server}: give a host name or an IP address, without port or scheme")
        if not self.clients:
            raise SettingsError("--clients: names no client; give the domains that they hold, as in svhn,usps")
        for name in self.clients:
            if not CLIENT_NAME.fullmatch(name):
                raise SettingsError(
                    f"--clients {name}: a name has letters, digits, single dots, dashes and underscores, 64 at most"
                )
        if twice := sorted({name for name in self.clients if self.clients.count(name) > 1}):
            raise SettingsError(f"--clients: {', '.join(twice)} is named twice; each client needs a domain of its own")
        if self.data_dir and not FOLDER.fullmatch(self.data_dir):
            raise SettingsError(
                f"--data-dir {self.data_dir}: give an absolute path without spaces, quotes, %, $ and backslashes"
            )
        if self.node_port + len(self.clients) - 1 > LAST_PORT:
            raise SettingsError(f"--node-port {self.node_port}: there are no {len(self.clients)} ports from there on")
        if self.port == self.superlink_port:
            raise SettingsError(f"--port {self.port}: the SuperLink has it (--superlink-port); give another")
        for option, port in (("--port", self.port), ("--superlink-port", self.superlink_port)):
            if port in range(self.node_port, self.node_port + len(self.clients)):
                raise SettingsError(f"{option} {port}: a SuperNode has it (--node-port {self.node_port}); give another")
        if twice := sorted({name for name in self.services if self.services.count(name) > 1}):
            raise SettingsError(f"--clients: {twice[0]} would be the name of two services; name the domains otherwise")

    @property
    def is_address(self) -> bool:
        """Whether the server is given by an IP address and not by a name."""
        try:
            ipaddress.ip_address(self.server)
        except ValueError:
            return False
        return True

    @property
    def superlink(self) -> str:
        """The address at which clients find the SuperLink, by the front: ``host:port``."""
        return f"[{self.server}]:{self.port}" if ":" in self.server else f"{self.server}:{self.port}"

    @property
    def control(self) -> str:
        """The address at which the server's own machine finds the SuperLink, to start runs and register keys."""
        return f"127.0.0.1:{self.superlink_port}"

    @property
    def services(self) -> list[str]:
        """The names of all services, those of the server first."""
        return [
            *(SUPERLINK_SERVICE, f"{SUPERLINK_SERVICE}-app", f"{SUPERLINK_SERVICE}-front"),
            *(f"fmtda-{client}{part}" for client in self.clients for part in ("", "-app")),
        ]

    def port_of(self, client: str) -> int:
        """Give the port at which a client's SuperNode talks to its ClientApp."""
        return self.node_port + self.clients.index(client)


def family_of(clients: tuple[str, ...], named: str | None) -> Family:
    """Find the family of these domains: the one named, else the first that has them all.

    Raises
    ------
    SettingsError, DataError
        If there is none, or it lacks one of them.
    """
    if named is None:
        for candidate in map(family, FAMILIES):
            if set(clients) <= set(candidate.domains):
                return candidate
        raise SettingsError(
            f"--clients {','.join(clients)}: no family of fixed domains has all of these; "
            "name yours with --data, as in --data image-folders"
        )
    found = family(named)
    if unknown := [name for name in clients if found.domains and name not in found.domains]:
        raise SettingsError(
            f"--clients {unknown[0]}: {named} has no such domain; allowed are {', '.join(found.domains)}"
        )
    return found


def refuse_source_among(clients: tuple[str, ...], data: Family, source: str) -> None:
    """Refuse a client that would hold what the server has as its labelled source.

    Raises
    ------
    SettingsError
        Naming the client and what to do.
    """
    taken = source or (data.default_source if data.domains else "")
    if taken in clients:
        raise SettingsError(
            f"--clients {','.join(clients)}: {taken} is the server's labelled source; leave it out, or name another "
            "domain with --source"
        )


def needs_files(data: Family, clients: tuple[str, ...]) -> bool:
    """Tell whether these domains come out of files, and not out of what is embedded."""
    try:
        data.check(clients, DataSpec())
    except DataError:
        return True
    return False
