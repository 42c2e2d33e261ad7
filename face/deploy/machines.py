"""Says what lies in each machine's folder, whose it is there, and who may read it.

Four accounts share the work, so that what runs foreign code holds no key: on a client's machine the SuperNode's, which
has the node's key, and the app's, which has the data; on the server the SuperLink's and the front's, with a key each,
and again the app's.
"""

from dataclasses import dataclass

NODE, SUPERLINK, FRONT, APP = "fmtda-node", "fmtda-superlink", "fmtda-front", "fmtda-app"

OWNERS_ALONE, WITH_GROUP, READABLE = 0o600, 0o640, 0o644
FOLDER, FOLDER_WITH_GROUP, FOLDER_OWNERS_ALONE = 0o755, 0o750, 0o700


@dataclass(frozen=True)
class Place:
    """Says whose a file or folder is on its machine, and who may read it."""

    owner: str = "root"
    group: str = "root"
    mode: int = READABLE

    @property
    def is_private(self) -> bool:
        """Whether not everybody on the machine may read it."""
        return not self.mode & 0o004


def _own(account: str, mode: int) -> Place:
    return Place(account, account, mode)


def server_places(clients: tuple[str, ...]) -> dict[str, Place]:
    """Give what lies in the server's folder, by its path there; folders end with a slash."""
    return {
        "server.toml": Place(),
        "ca.crt": Place(),
        "superlink.crt": Place(),
        "superlink.key": _own(SUPERLINK, OWNERS_ALONE),
        "superexec.secret": Place(SUPERLINK, APP, WITH_GROUP),
        "state/": _own(SUPERLINK, FOLDER_OWNERS_ALONE),
        "app/": _own(APP, FOLDER_WITH_GROUP),
        "front/": Place(mode=FOLDER),
        "front/nginx.conf": Place(),
        "front/server.crt": Place(),
        "front/server.key": _own(FRONT, OWNERS_ALONE),
        "front/run/": _own(FRONT, FOLDER_OWNERS_ALONE),
        "operator/": Place(mode=FOLDER),
        "nodes/": Place(mode=FOLDER),
        **{f"nodes/{client}.pub": Place() for client in clients},
        "compose.yaml": Place(),
        "fmtda-superlink.service": Place(),
        "fmtda-superlink-app.service": Place(),
        "fmtda-superlink-front.service": Place(),
    }


def client_places(client: str) -> dict[str, Place]:
    """Give what lies in a client's folder, by its path there; folders end with a slash."""
    return {
        "client.toml": Place(),
        "ca.crt": Place(),
        "node.key": _own(NODE, OWNERS_ALONE),
        "superexec.secret": Place(NODE, APP, WITH_GROUP),
        "state/": _own(NODE, FOLDER_OWNERS_ALONE),
        "app/": _own(APP, FOLDER_OWNERS_ALONE),
        "compose.yaml": Place(),
        f"fmtda-{client}.service": Place(),
        f"fmtda-{client}-app.service": Place(),
    }
