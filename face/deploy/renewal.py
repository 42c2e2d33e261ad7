"""Renews the server's certificates with the authority that is there, so that clients keep their ``ca.crt``."""

import datetime
from dataclasses import dataclass
from pathlib import Path

from fmtda.face.deploy.certificates import Signed, end_of, is_near_the_end
from fmtda.face.deploy.deployment import Deployment
from fmtda.face.deploy.folder import AUTHORITY, certificate_files, read, write_files
from fmtda.protocol.settings import SettingsError

SERVERS = ("superlink/front/server.crt", "superlink/superlink.crt")


@dataclass(frozen=True)
class Ends:
    """Says until when the deployment's certificates hold, by their path below the folder, and which was renewed."""

    until: dict[str, datetime.datetime]
    renewed: tuple[str, ...]
    authority_is_near_the_end: bool


def renew(deployment: Deployment, folder: Path, now: bool) -> Ends:
    """Renew the server's certificates if one is near its end, or `now`; both together, with new keys.

    Raises
    ------
    SettingsError
        If a certificate or the authority's key can't be read, or they don't belong together.
    """
    paths = (AUTHORITY[0], *SERVERS)
    try:
        near = {name: is_near_the_end(read(folder / name)) for name in paths}
        wanted = now or any(near[name] for name in SERVERS)
        if wanted:
            authority = Signed(*(read(folder / name) for name in AUTHORITY))
            write_files(folder, certificate_files(deployment, authority))
        until = {name: end_of(read(folder / name)) for name in paths}
    except ValueError as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(f"{folder}: a certificate or key there is spoiled ({error}); put it back") from None
    return Ends(until, SERVERS if wanted else (), near[AUTHORITY[0]])
