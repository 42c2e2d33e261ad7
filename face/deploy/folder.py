"""Writes a deployment's folder: all of it, or nothing where something is there; private keys are for their owner."""

import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from fmtda.face.deploy import containers, front, services
from fmtda.face.deploy.certificates import LOOPBACK, Signed, new_authority, server_certificate
from fmtda.face.deploy.deployment import Deployment
from fmtda.face.deploy.deployment_file import DEPLOYMENT_FILE, client_text, deployment_text, server_text
from fmtda.face.deploy.machines import OWNERS_ALONE, READABLE, client_places
from fmtda.face.deploy.node_keys import node_key_pair
from fmtda.face.deploy.page import page
from fmtda.protocol.settings import SettingsError

NAMED_AT_MOST = 3
SECRET_BYTES = 32

AUTHORITY = ("authority/ca.crt", "authority/ca.key")


@dataclass(frozen=True)
class File:
    """Holds a file's content, and who may read it in the deployment's folder."""

    content: bytes
    mode: int = READABLE


def files_of(deployment: Deployment) -> dict[str, File]:
    """Make all files, with new keys, by their path below the folder.

    ::

        README.md                   the commands in order
        deployment.toml             what the deployment was set up with
        Containerfile               image of all machines
        authority/                  signs certificates; stays away from all machines
        superlink/                  goes to the server
        clients/NAME/               goes to that client
    """
    authority = new_authority(deployment.server)
    files = {
        **_about(deployment),
        "Containerfile": _text(containers.containerfile()),
        "authority/ca.crt": File(authority.certificate),
        "authority/ca.key": _secret(authority.key),
        "superlink/ca.crt": File(authority.certificate),
        "superlink/superexec.secret": _secret(secrets.token_bytes(SECRET_BYTES)),
        "superlink/compose.yaml": _text(containers.superlink(deployment)),
        "superlink/server.toml": _text(server_text(deployment)),
        "superlink/front/nginx.conf": _text(front.nginx(deployment)),
        **{f"superlink/{name}": _text(unit) for name, unit in services.superlink(deployment).items()},
        **certificate_files(deployment, authority),
    }
    for client in deployment.clients:
        files |= _client_files(deployment, client, authority.certificate)
    return files


def certificate_files(deployment: Deployment, authority: Signed) -> dict[str, File]:
    """Make the server's two certificates anew, with new keys, by their path below the folder."""
    front_s = server_certificate((deployment.server,), authority)
    superlinks = server_certificate(LOOPBACK, authority)
    return {
        "superlink/front/server.crt": File(front_s.certificate),
        "superlink/front/server.key": _secret(front_s.key),
        "superlink/superlink.crt": File(superlinks.certificate),
        "superlink/superlink.key": _secret(superlinks.key),
    }


def write(deployment: Deployment, folder: Path, force: bool) -> None:
    """Write all files.

    Raises
    ------
    SettingsError
        If one of them is there already and `force` is not set: then nothing is written. Or if the system refuses.
    """
    files = files_of(deployment)
    if not force:
        _refuse_present(
            folder,
            files,
            "would be overwritten, and clients that hold the old keys refused; name another folder, or give --force",
        )
    write_files(folder, files)


def add(deployment: Deployment, clients: tuple[str, ...], folder: Path) -> Deployment:
    """Write new clients' folders into a deployment that is there; its keys and certificates stay as they are.

    Raises
    ------
    SettingsError
        If a client is there already, or one of its files, or the system refuses: then nothing is written.
    """
    if not clients:
        raise SettingsError("CLIENTS: names no client; give the domains of the new ones, as in mnist-m,synth")
    if there := [client for client in clients if client in deployment.clients]:
        raise SettingsError(f"{there[0]}: is a client of {folder} already; its keys stay as they are")
    larger = replace(deployment, clients=(*deployment.clients, *clients))
    authority = read(folder / "superlink" / "ca.crt")
    files = {name: file for client in clients for name, file in _client_files(larger, client, authority).items()}
    _refuse_present(folder, files, "would be overwritten; move it away first")
    write_files(folder, {**files, **_about(larger)})
    return larger


def read(path: Path) -> bytes:
    """Read a file of the folder.

    Raises
    ------
    SettingsError
        If it can't be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: can't be read ({error.strerror}); `fmtda deploy init` wrote one") from None


def write_files(folder: Path, files: dict[str, File]) -> None:
    """Write files, each at once and whole.

    Raises
    ------
    SettingsError
        If the system refuses.
    """
    try:
        for name, file in files.items():
            _write(folder / name, file)
    except OSError as error:
        raise SettingsError(f"{folder}: can't be written to ({error.strerror}); name another folder") from None


def _about(deployment: Deployment) -> dict[str, File]:
    return {"README.md": _text(page(deployment)), DEPLOYMENT_FILE: _text(deployment_text(deployment))}


def _client_files(deployment: Deployment, client: str, authority: bytes) -> dict[str, File]:
    private, public = node_key_pair()
    units = services.supernode(deployment, client)
    contents = {
        "client.toml": client_text(deployment, client).encode(),
        "ca.crt": authority,
        "node.key": private,
        "superexec.secret": secrets.token_bytes(SECRET_BYTES),
        "compose.yaml": containers.supernode(deployment, client).encode(),
        **{name: unit.encode() for name, unit in units.items()},
    }
    places = client_places(client)
    return {
        f"superlink/nodes/{client}.pub": File(public),
        **{
            f"clients/{client}/{name}": File(content, OWNERS_ALONE if places[name].is_private else READABLE)
            for name, content in contents.items()
        },
    }


def _refuse_present(folder: Path, files: Iterable[str], consequence: str) -> None:
    present = [name for name in files if os.path.lexists(folder / name)]
    if present:
        named = ", ".join(present[:NAMED_AT_MOST]) + (", ..." if len(present) > NAMED_AT_MOST else "")
        raise SettingsError(f"{folder}: {named} {consequence}")


def _text(content: str) -> File:
    return File(content.encode())


def _secret(content: bytes) -> File:
    return File(content, OWNERS_ALONE)


def _write(path: Path, file: File) -> None:
    """Replace a file; a private one is never readable by others, not even while it is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.writing")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNERS_ALONE), "wb") as opened:
        opened.write(file.content)
    aside.chmod(file.mode)
    aside.replace(path)
