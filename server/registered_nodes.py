"""Reads which registered node is which client: in a deployment a node may be no other than its key was registered for.

``fmtda deploy`` writes the file (`nodes-file`) when it registers the keys: a table ``[nodes]`` of client names by
Flower's node ids, which are quoted decimal numbers::

    [nodes]
    "1234567890123456789" = "svhn/0000"

It is read anew before every round, so that a client that is registered while a run goes on may take part.
"""

import tomllib
from pathlib import Path

from fmtda.protocol.client_names import check_client_name
from fmtda.protocol.printable import printable
from fmtda.protocol.tables import SettingsError

LARGEST_NODE_ID = 2**64 - 1


def registered_nodes(file: str) -> dict[int, str]:
    """Read the clients' names by node id.

    Raises
    ------
    SettingsError
        In one line, if the file can't be read, is no such table, or names a client twice.
    """
    try:
        tables = tomllib.loads(Path(file).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise _refused(file, error.strerror or type(error).__name__) from None
    except (ValueError, RecursionError) as error:  # no TOML, or no UTF-8
        raise _refused(file, f"it is no TOML ({error})") from None
    nodes = tables.get("nodes")
    if not isinstance(nodes, dict) or not nodes:
        raise _refused(file, "it has no table [nodes]")
    names: dict[int, str] = {}
    for node_id, name in nodes.items():
        if not (node_id.isascii() and node_id.isdecimal() and len(node_id) <= 20 and int(node_id) <= LARGEST_NODE_ID):
            raise _refused(file, f"{node_id!r} is no node id, expected a decimal number in quotes")
        if not isinstance(name, str):
            raise _refused(file, f"node {node_id} is {name!r}, expected a client's name in quotes")
        try:
            check_client_name(name)
        except ValueError as error:
            raise _refused(file, f"node {node_id}: {error}") from None
        if name in names.values():
            raise _refused(file, f"{name} is there twice; a client has one node")
        if int(node_id) in names:
            raise _refused(file, f"node {int(node_id)} is there twice")
        names[int(node_id)] = name
    return names


def _refused(file: str, why: str) -> SettingsError:
    return SettingsError(f"nodes-file={file}: {printable(why)}; `fmtda deploy` writes this file, see docs/deploy.md")
