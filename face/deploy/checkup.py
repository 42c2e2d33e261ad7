"""Looks at a deployment from a client's machine: its versions, data, and whether the server is there as it should be.

Flower signs each request with the time and refuses it where the client's clock is 5 s or more ahead of the server's, or
305 s or more behind (``SYSTEM_TIME_TOLERANCE`` and ``TIMESTAMP_TOLERANCE``, 1.41 and 1.42).
"""

import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

from fmtda.domains.examples import DataError
from fmtda.domains.family import DataSpec
from fmtda.domains.registry import family
from fmtda.face.deploy.deployment_file import ClientFile, versions_here
from fmtda.protocol.settings import SettingsError

AHEAD, BEHIND = 5.0, 305.0
"""Seconds by which a client's clock must differ from the server's to be refused."""

DATE_STEP = 1.0
"""A server tells its time in whole seconds."""

SECONDS_TO_ANSWER = 10.0


@dataclass(frozen=True)
class Found:
    """Says what was found of one thing; where it isn't good, `found` says what to do too."""

    subject: str
    good: bool
    found: str


def look(client: ClientFile, folder: Path) -> Iterator[Found]:
    """Look at everything, one thing after another."""
    yield _versions(client)
    yield _data(client)
    addresses = _resolved(client)
    yield addresses
    if addresses.good:
        yield from _server(client, folder / "ca.crt")


def _versions(client: ClientFile) -> Found:
    """Compare the versions here with those of the machine on which the deployment was set up."""
    here = versions_here()
    wanted = client.versions
    wrong = [name for name, version in here.items() if _told_apart(name, version) != _told_apart(name, wanted[name])]
    told = ", ".join(f"{name} {version}" for name, version in here.items())
    if not wrong:
        return Found("versions", True, told)
    other = ", ".join(f"{name} {wanted[name]}" for name in wrong)
    return Found("versions", False, f"{told}: the deployment was set up with {other}; install that here")


def _told_apart(name: str, version: str) -> str:
    """Cut a version down to what matters: of Python the minor one, of Flower too, whose messages stay alike below."""
    return version if name == "fmtda" else ".".join(version.split(".")[:2])


def _data(client: ClientFile) -> Found:
    """Read the client's domain as a run will, and count it."""
    spec = DataSpec(Path(client.data_dir) if client.data_dir else None)
    where = client.data_dir or "embedded"
    try:
        mine = family(client.data)
        mine.check((client.domain,), spec)
        counts = [len(mine.load(client.domain, part, spec)) for part in ("train", "test")]
    except (DataError, SettingsError, OSError) as error:
        advice = "put the files where docs/data.md says, readable by the account fmtda-app"
        return Found("data", False, f"{client.domain} of {client.data} in {where}: {error}; {advice}")
    if not counts[0]:
        return Found("data", False, f"{client.domain} of {client.data} in {where}: has no training examples")
    return Found(
        "data", True, f"{client.domain} of {client.data} in {where}: {counts[0]} to train, {counts[1]} to test"
    )


def _resolved(client: ClientFile) -> Found:
    try:
        infos = socket.getaddrinfo(client.server, client.port, type=socket.SOCK_STREAM)
    except OSError as error:
        advice = "enter it in DNS or /etc/hosts"
        return Found("address", False, f"{client.server}: is unknown here ({error.strerror or error}); {advice}")
    addresses = ", ".join(sorted({str(info[4][0]) for info in infos}))
    return Found("address", True, f"{client.server} is {addresses}")


def _server(client: ClientFile, authority: Path) -> Iterator[Found]:
    """Ask the front for something that it must refuse, and compare clocks by its answer."""
    where = f"{client.server}:{client.port}"
    try:
        context = ssl.create_default_context(cafile=str(authority))
    except (OSError, ssl.SSLError) as error:
        yield Found("server", False, f"{authority}: can't be read ({error}); put it back from the archive")
        return
    connection = http.client.HTTPSConnection(client.server, client.port, timeout=SECONDS_TO_ANSWER, context=context)
    try:
        connection.connect()
        before = time.time()
        connection.request("POST", "/v1/control/list-runs", body=b"")
        answer = connection.getresponse()
        answer.read()
        after = time.time()
    except ssl.SSLCertVerificationError as error:
        advice = "ask who set this up: another server answers, its certificate has ended, or ca.crt is another's"
        yield Found("server", False, f"{where}: {error.verify_message}; {advice}")
        return
    except (OSError, http.client.HTTPException) as error:
        advice = "is the front up, and the port open to this machine?"
        yield Found("server", False, f"{where}: no TLS answer ({_reason(error)}); {advice}")
        return
    finally:
        connection.close()
    yield Found("server", True, f"{where}: answers with a certificate of our authority")
    if answer.status == http.client.FORBIDDEN:
        yield Found("control", True, "closed to this machine, as it must be")
    else:
        advice = "tell who set this up: any client could start runs here; the front must stand before the SuperLink"
        yield Found("control", False, f"open ({answer.status}); {advice}")
    yield _clock(answer.getheader("Date"), before, after)


def _clock(date: str | None, before: float, after: float) -> Found:
    """Compare clocks: the server's second began at most a second before the middle of the exchange."""
    try:
        server = parsedate_to_datetime(date or "").timestamp() + DATE_STEP / 2
    except ValueError:
        return Found("clock", False, "the server told no time; look at its front")
    ahead = (before + after) / 2 - server
    doubt = (DATE_STEP + after - before) / 2
    told = f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the server's (to {doubt:.1f} s)"
    if -BEHIND + doubt < ahead < AHEAD - doubt:
        return Found("clock", True, told)
    advice = f"Flower refuses {AHEAD:.0f} s ahead and {BEHIND:.0f} s behind; set both by NTP (timedatectl set-ntp true)"
    return Found("clock", False, f"{told}; {advice}")


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text)
