"""Keeps what a deployment was set up with in its folder, and each client's part of it in that client's."""

import tomllib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

import tomli_w

from fmtda.face.deploy.deployment import Deployment
from fmtda.protocol.settings import SettingsError

DEPLOYMENT_FILE, SERVER_FILE, CLIENT_FILE = "deployment.toml", "server.toml", "client.toml"


@dataclass(frozen=True)
class ClientFile:
    """Holds what a client's machine has to know to look at itself: which server, which data, which versions."""

    server: str
    port: int
    domain: str
    data: str
    data_dir: str
    versions: dict[str, str]


def versions_here() -> dict[str, str]:
    """Tell the versions that both sides of a deployment should share."""
    return {"fmtda": version("fmtda"), "flwr": version("flwr"), "Python": python_version()}


def deployment_text(deployment: Deployment) -> str:
    """Write a deployment down as TOML."""
    head = "# What `fmtda deploy init` was given; add, renew and pack read it.\n"
    return head + tomli_w.dumps(
        {
            "server": deployment.server,
            "clients": list(deployment.clients),
            "data": deployment.data,
            "data-dir": deployment.data_dir,
            "source": deployment.source,
            "port": deployment.port,
            "superlink-port": deployment.superlink_port,
            "node-port": deployment.node_port,
        }
    )


def server_text(deployment: Deployment) -> str:
    """Write the server's part down as TOML."""
    return "# `fmtda deploy register` reads it.\n" + tomli_w.dumps({"control": deployment.control})


def client_text(deployment: Deployment, client: str) -> str:
    """Write a client's part down as TOML."""
    head = "# What this client is; `fmtda deploy check` reads it.\n"
    return head + tomli_w.dumps(
        {
            "server": deployment.server,
            "port": deployment.port,
            "domain": client,
            "data": deployment.data,
            "data-dir": deployment.data_dir,
            "versions": versions_here(),
        }
    )


def read_deployment(folder: Path) -> Deployment:
    """Read what a folder was set up with.

    Raises
    ------
    SettingsError
        If the folder is none that ``fmtda deploy init`` wrote, or its file was spoiled.
    """
    table = _read(folder / DEPLOYMENT_FILE, "name a folder that `fmtda deploy init` wrote")
    try:
        return Deployment(
            str(table["server"]),
            tuple(map(str, table["clients"])),
            str(table["data"]),
            str(table["data-dir"]),
            int(table["port"]),
            int(table["node-port"]),
            str(table["source"]),
            int(table["superlink-port"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _spoiled(folder / DEPLOYMENT_FILE, error) from None


def read_control(folder: Path) -> str:
    """Read from the server's folder where its SuperLink is to be reached: ``host:port``.

    Raises
    ------
    SettingsError
        If the folder is not the server's, or its file was spoiled.
    """
    table = _read(folder / SERVER_FILE, "run this in the server's folder, `superlink`, or name that")
    try:
        return str(table["control"])
    except KeyError as error:
        raise _spoiled(folder / SERVER_FILE, error) from None


def read_client(folder: Path) -> ClientFile:
    """Read what a client's folder is for.

    Raises
    ------
    SettingsError
        If the folder is no client's, or its file was spoiled.
    """
    table = _read(folder / CLIENT_FILE, "run this in the client's own folder, or name that")
    try:
        return ClientFile(
            str(table["server"]),
            int(table["port"]),
            str(table["domain"]),
            str(table["data"]),
            str(table["data-dir"]),
            {str(name): str(value) for name, value in table["versions"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _spoiled(folder / CLIENT_FILE, error) from None


def _read(path: Path, advice: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: can't be read ({error.strerror}); {advice}") from None
    except ValueError as error:
        raise _spoiled(path, error) from None


def _spoiled(path: Path, error: Exception) -> SettingsError:
    if isinstance(error, SettingsError):
        return error
    what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    return SettingsError(f"{path}: {what}; put the file back as `fmtda deploy init` wrote it")
