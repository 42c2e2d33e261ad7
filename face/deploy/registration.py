"""Registers the clients' keys with the running SuperLink, and writes down which of its nodes is which client.

Flower gives a key a number, the node's id, when it is registered, and keeps both in its database; the id stays through
restarts of SuperNode and SuperLink. The SuperLink itself is asked which key has which id, so that the file is right
whatever was registered before.

This talks to Flower's control interface as its command line does (1.41 and 1.42).
"""

import json
from pathlib import Path

from fmtda.face.deploy.deployment_file import read_control
from fmtda.face.deploy.flower_commands import NODES_FILE, connection
from fmtda.face.deploy.machines import READABLE
from fmtda.protocol.client_names import client_name
from fmtda.protocol.settings import SettingsError

HEAD = "# Which of Flower's nodes is which client, by the keys that `fmtda deploy register` registered.\n"

OPERATOR_FILE = "operator/config.toml"

GONE = "unregistered"


def register(folder: Path) -> dict[str, str]:
    """Register every key in the folder's ``nodes/`` that isn't yet, and write ``nodes/nodes.toml``.

    Also writes `operator/config.toml`, by which ``flwr`` finds the SuperLink.

    Parameters
    ----------
    folder
        The server's folder.

    Returns
    -------
    dict
        Client name by node id, as it was written.

    Raises
    ------
    SettingsError
        If there is no key, one can't be read, or the SuperLink doesn't answer or refuses.
    """
    control = read_control(folder)
    keys = _public_keys(folder)
    by_key = _registered(folder, control, keys)
    nodes = {str(by_key[key]): client_name(client, 0) for client, key in keys.items()}
    table = "".join(f"{json.dumps(node)} = {json.dumps(client)}\n" for node, client in nodes.items())
    _write(folder / NODES_FILE, f"{HEAD}[nodes]\n{table}")
    _write(folder / OPERATOR_FILE, connection(control, str((folder / "ca.crt").absolute())))
    return nodes


def _write(path: Path, text: str) -> None:
    """Replace a file that everybody on the machine may read."""
    aside = path.with_name(f".{path.name}.writing")
    try:
        path.parent.mkdir(exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        aside.chmod(READABLE)
        aside.replace(path)
    except OSError as error:
        raise SettingsError(f"{path}: can't be written to ({error.strerror}); run this as the folder's owner") from None


def _public_keys(folder: Path) -> dict[str, bytes]:
    """Read the clients' public keys, as the SuperLink knows them, by the client's domain."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    keys: dict[str, bytes] = {}
    for path in sorted((folder / "nodes").glob("*.pub")):
        try:
            key = serialization.load_ssh_public_key(path.read_bytes())
        except (OSError, ValueError) as error:
            raise SettingsError(f"{path}: is no public key in OpenSSH's format ({error})") from None
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise SettingsError(f"{path}: Flower wants a key on a NIST curve: ssh-keygen -t ecdsa -b 384")
        keys[path.stem] = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    if not keys:
        raise SettingsError(f"{folder / 'nodes'}: has no public keys; name the server's folder, `superlink`")
    if twice := {key for key in keys.values() if list(keys.values()).count(key) > 1}:
        same = [client for client, key in keys.items() if key in twice]
        raise SettingsError(f"{folder / 'nodes'}: {' and '.join(same)} have the same key; each client needs its own")
    return keys


def _registered(folder: Path, address: str, keys: dict[str, bytes]) -> dict[bytes, int]:
    """Register the keys that aren't, and ask the SuperLink for all ids, by key."""
    import httpx
    from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest
    from flwr.supercore.control import ControlHttpClient
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

    try:
        authority = (folder / "ca.crt").read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{folder / 'ca.crt'}: can't be read ({error.strerror}); name the server's folder"
        ) from None
    control = ControlHttpClient.from_server_address(
        server_address=address,
        insecure=False,
        root_certificates=authority,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
    )

    def ids() -> dict[bytes, int]:
        listed = control.ListNodes(ListNodesRequest()).nodes_info
        return {node.public_key: node.node_id for node in listed if node.status != GONE}

    try:
        there = ids()
        for client, key in keys.items():
            if key not in there:
                control.RegisterNode(RegisterNodeRequest(public_key=key, name=client))
        return ids()
    except httpx.HTTPStatusError as error:
        raise SettingsError(f"{address}: the SuperLink refused ({error.response.status_code}); see its log") from None
    except httpx.HTTPError as error:
        raise SettingsError(
            f"{address}: the SuperLink doesn't answer ({error}); start it first, on this machine"
        ) from None
    finally:
        control.close()
