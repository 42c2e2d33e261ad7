"""Gives the command lines of a deployment in the words of Flower 1.41 and nginx: for page, containers and units alike.

Code of the app, ServerApp and ClientApps, runs below a SuperExec (``--isolation process``), so that it can be another
account's than the process that holds the keys.
"""

import json

from fmtda.face.deploy.deployment import CONNECTION, Deployment

LOOPBACK = "127.0.0.1"
"""Where the SuperLink listens, and each SuperNode to its own app: nobody reaches it from another machine."""

SECRET = "superexec.secret"
"""By this shared secret a SuperLink or SuperNode knows its own SuperExec from other programs on the machine."""

DATABASE = "state/superlink.db"

NODES_FILE = "nodes/nodes.toml"
"""Where the server keeps which of Flower's nodes is which client."""


def superlink(deployment: Deployment) -> list[list[str]]:
    """Give the command that starts the SuperLink in its folder, option by option.

    Control and fleet interface are one port in Flower 1.41; who reaches it can start runs. So it is on loopback alone.
    """
    return [
        ["flower-superlink"],
        ["--host", LOOPBACK],
        ["--port", str(deployment.superlink_port)],
        ["--ssl-ca-certfile", "ca.crt"],
        ["--ssl-certfile", "superlink.crt"],
        ["--ssl-keyfile", "superlink.key"],
        ["--enable-supernode-auth"],
        ["--isolation", "process"],
        ["--superexec-auth-secret-file", SECRET],
        ["--database", DATABASE],
    ]


def superlink_app(deployment: Deployment) -> list[list[str]]:
    """Give the command that runs ServerApps, in the folder `app`.

    It uses the installed environment; only ``--allow-runtime-dependency-installation`` would install torch anew.
    """
    return [
        ["flower-superexec"],
        ["--runtime-api-address", deployment.control],
        ["--root-certificates", "../ca.crt"],
        ["--superexec-auth-secret-file", f"../{SECRET}"],
    ]


def front() -> list[list[str]]:
    """Give the command that starts nginx in the folder `front`."""
    return [["nginx"], ["-p", "."], ["-e", "stderr"], ["-c", "nginx.conf"]]


def supernode(deployment: Deployment, client: str, folder: str) -> list[list[str]]:
    """Give the command that starts a client's SuperNode, option by option; in `folder` the client keeps its part."""
    config = {"domain": client, "data-dir": deployment.data_dir, "folder": folder}
    return [
        ["flower-supernode"],
        ["--superlink", deployment.superlink],
        ["--root-certificates", "ca.crt"],
        ["--auth-supernode-private-key", "node.key"],
        ["--isolation", "process"],
        ["--superexec-auth-secret-file", SECRET],
        ["--host", LOOPBACK],
        ["--port", str(deployment.port_of(client))],
        ["--node-config", " ".join(f'{key}="{value}"' for key, value in config.items() if value)],
    ]


def supernode_app(deployment: Deployment, client: str) -> list[list[str]]:
    """Give the command that runs a client's ClientApps, in the folder `app`: without the node's key."""
    return [
        ["flower-superexec"],
        ["--runtime-api-address", f"{LOOPBACK}:{deployment.port_of(client)}"],
        ["--insecure"],  # within the machine, over loopback
        ["--superexec-auth-secret-file", f"../{SECRET}"],
    ]


def run_config(deployment: Deployment) -> str:
    """Give the run config that a run on this deployment needs."""
    keys = {"data.name": deployment.data, "data.dir": deployment.data_dir, "data.source": deployment.source}
    keys["data.targets"] = ",".join(deployment.clients)
    texts = [f'{key}="{value}"' for key, value in keys.items() if value]
    return " ".join([*texts, f"clients={len(deployment.clients)}"])


def connection(control: str, authority: str) -> str:
    """Give the configuration by which Flower's command line finds the SuperLink.

    Parameters
    ----------
    control
        ``host:port``.
    authority
        Absolute path of the authority's certificate; Flower takes no other.
    """
    return f"[superlink.{CONNECTION}]\naddress = {json.dumps(control)}\nroot-certificates = {json.dumps(authority)}\n"
