"""Gives the command lines of SuperLink and SuperNodes in Flower 1.41's words: for page, containers and units alike."""

from fmtda.face.deploy.deployment import Deployment


def superlink(deployment: Deployment) -> list[list[str]]:
    """Give the command that starts the SuperLink in its folder, option by option.

    Its ServerApp uses the installed environment: without the last option Flower would install torch anew for each run.
    """
    return [
        ["flower-superlink"],
        ["--host", "::" if ":" in deployment.server else "0.0.0.0"],
        ["--port", str(deployment.port)],
        ["--ssl-ca-certfile", "ca.crt"],
        ["--ssl-certfile", "server.crt"],
        ["--ssl-keyfile", "server.key"],
        ["--enable-supernode-auth"],
        ["--database", "superlink.db"],
        ["--disable-runtime-dependency-installation"],
    ]


def supernode(deployment: Deployment, client: str, folder: str) -> list[list[str]]:
    """Give the command that starts a client's SuperNode, option by option; in `folder` the client keeps its part."""
    config = {"domain": client, "data-dir": deployment.data_dir, "folder": folder}
    return [
        ["flower-supernode"],
        ["--superlink", deployment.superlink],
        ["--root-certificates", "ca.crt"],
        ["--auth-supernode-private-key", "node.key"],
        ["--port", str(deployment.port_of(client))],
        ["--node-config", " ".join(f'{key}="{value}"' for key, value in config.items() if value)],
    ]


def run_config(deployment: Deployment) -> str:
    """Give the run config that a run on this deployment needs."""
    keys = {"data.name": deployment.data, "data.dir": deployment.data_dir, "data.source": deployment.source}
    keys["data.targets"] = ",".join(deployment.clients)
    texts = [f'{key}="{value}"' for key, value in keys.items() if value]
    return " ".join([*texts, f"clients={len(deployment.clients)}"])
