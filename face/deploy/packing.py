"""Packs each machine's part of a deployment's folder into one archive, with the owners and modes that it needs there.

Unpacked by root, names of accounts become the machine's own numbers; an account that isn't there yet is root's, which
reads nothing it shouldn't. The authority's key and other machines' files are in none: what goes in is a list, and what
lies in the folder beside it stays out.
"""

import io
import os
import tarfile
import tempfile
from pathlib import Path

from fmtda.face.deploy.deployment import Deployment
from fmtda.face.deploy.machines import OWNERS_ALONE, Place, client_places, server_places
from fmtda.protocol.settings import SettingsError

MAY_LACK = ("node.key",)
"""A client may have made its key itself, and sent its public half alone."""


def pack(deployment: Deployment, folder: Path, output: Path, force: bool) -> list[Path]:
    """Write the server's archive and one a client.

    Parameters
    ----------
    deployment
        Whose folder it is.
    folder
        The deployment's folder.
    output
        Where the archives go: ``superlink.tar.gz`` and ``NAME.tar.gz``.
    force
        Replace archives that are there.

    Returns
    -------
    list of Path
        The archives.

    Raises
    ------
    SettingsError
        If a file is missing, or an archive is there already and `force` is not set: then nothing is written.
    """
    machines = {"superlink": (folder / "superlink", server_places(deployment.clients))}
    for client in deployment.clients:
        machines[client] = (folder / "clients" / client, client_places(client))
    archives = {output / f"{name}.tar.gz": (name, *machine) for name, machine in machines.items()}
    if not force and (there := [path for path in archives if os.path.lexists(path)]):
        raise SettingsError(f"{there[0]}: is there already; give --force to replace it, or --output another folder")
    packed = {path: _archive(*machine) for path, machine in archives.items()}
    try:
        output.mkdir(parents=True, exist_ok=True)
        for path, content in packed.items():
            _replace(path, content)
    except OSError as error:
        raise SettingsError(f"{output}: can't be written to ({error.strerror}); give --output another folder") from None
    return list(packed)


def _archive(name: str, folder: Path, places: dict[str, Place]) -> bytes:
    """Pack what `places` names out of a machine's folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(_entry(f"{name}/", Place(mode=0o755), 0))
        for path, place in places.items():
            if path.endswith("/"):
                archive.addfile(_entry(f"{name}/{path}", place, 0))
                continue
            try:
                content = (folder / path).read_bytes()
            except FileNotFoundError:
                if path in MAY_LACK:
                    continue
                raise SettingsError(f"{folder / path}: is missing; `fmtda deploy init` wrote one") from None
            except OSError as error:
                raise SettingsError(f"{folder / path}: can't be read ({error.strerror})") from None
            archive.addfile(_entry(f"{name}/{path}", place, len(content)), io.BytesIO(content))
    return buffer.getvalue()


def _entry(path: str, place: Place, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path.rstrip("/"))
    entry.type = tarfile.DIRTYPE if path.endswith("/") else tarfile.REGTYPE
    entry.uname, entry.gname, entry.mode, entry.size = place.owner, place.group, place.mode, size
    return entry


def _replace(path: Path, content: bytes) -> None:
    """Write an archive, which holds private keys, for its owner alone."""
    descriptor, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)
    os.chmod(aside, OWNERS_ALONE)
    os.replace(aside, path)
