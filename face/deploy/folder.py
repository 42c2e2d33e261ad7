"""Writes a deployment's folder: all of it, or nothing where something is there; private keys are for their owner."""

import os
from dataclasses import dataclass
from pathlib import Path

from fmtda.face.deploy import containers, services
from fmtda.face.deploy.certificates import certificates
from fmtda.face.deploy.deployment import Deployment
from fmtda.face.deploy.node_keys import node_key_pair
from fmtda.face.deploy.page import page
from fmtda.protocol.settings import SettingsError

PRIVATE, PUBLIC = 0o600, 0o644
NAMED_AT_MOST = 3


@dataclass(frozen=True)
class File:
    """Holds a file's content, and who may read it."""

    content: bytes
    mode: int = PUBLIC


def files_of(deployment: Deployment) -> dict[str, File]:
    """Make all files, with new keys, by their path below the folder.

    ::

        README.md                   the commands in order
        Containerfile               image of all machines
        authority/ca.key            signs certificates; stays away from all machines
        superlink/                  goes to the server
        clients/NAME/               goes to that client
    """
    tls = certificates(deployment.server)
    files = {
        "README.md": File(page(deployment).encode()),
        "Containerfile": File(containers.containerfile().encode()),
        "authority/ca.key": File(tls["ca.key"], PRIVATE),
        "superlink/ca.crt": File(tls["ca.crt"]),
        "superlink/server.crt": File(tls["server.crt"]),
        "superlink/server.key": File(tls["server.key"], PRIVATE),
        "superlink/compose.yaml": File(containers.superlink(deployment).encode()),
        "superlink/fmtda-superlink.service": File(services.superlink(deployment).encode()),
    }
    for client in deployment.clients:
        private, public = node_key_pair()
        folder = f"clients/{client}"
        files |= {
            f"superlink/nodes/{client}.pub": File(public),
            f"{folder}/ca.crt": File(tls["ca.crt"]),
            f"{folder}/node.key": File(private, PRIVATE),
            f"{folder}/compose.yaml": File(containers.supernode(deployment, client).encode()),
            f"{folder}/fmtda-{client}.service": File(services.supernode(deployment, client).encode()),
        }
    return files


def write(deployment: Deployment, folder: Path, force: bool) -> None:
    """Write all files.

    Raises
    ------
    SettingsError
        If one of them is there already and `force` is not set: then nothing is written. Or if the system refuses.
    """
    files = files_of(deployment)
    present = [name for name in files if os.path.lexists(folder / name)]
    if present and not force:
        named = ", ".join(present[:NAMED_AT_MOST]) + (", ..." if len(present) > NAMED_AT_MOST else "")
        raise SettingsError(
            f"{folder}: {named} would be overwritten, and clients that hold the old keys refused; "
            "name another folder, or give --force"
        )
    try:
        for name, file in files.items():
            _write(folder / name, file)
    except OSError as error:
        raise SettingsError(f"{folder}: can't be written to ({error.strerror}); name another folder") from None


def _write(path: Path, file: File) -> None:
    """Replace a file; a private one is never readable by others, not even while it is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.writing")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE), "wb") as opened:
        opened.write(file.content)
    aside.chmod(file.mode)
    aside.replace(path)
