"""Writes the compose files, one a machine, and how the image is built that all of them run.

Each process gets what it needs of the machine's folder and nothing else, so that no container that runs foreign code
sees a key. On the server they share the machine's own network: the SuperLink's loopback is the machine's, where `flwr`
works as without containers. On a client's machine the app shares its SuperNode's network.
"""

import json
from importlib.metadata import version
from itertools import chain
from typing import Any

from fmtda.face.deploy import flower_commands
from fmtda.face.deploy.deployment import INSTALLED, SUPERLINK_SERVICE, Deployment
from fmtda.face.deploy.machines import APP, FRONT, NODE, SUPERLINK
from fmtda.protocol.telemetry import FLOWER_OFF

CONTAINERFILE = """\
# The image of server and clients. In a checkout of fmtda:
#   docker build -t fmtda:{version} -f THIS_FILE .
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends nginx-light && rm -rf /var/lib/apt/lists/*
COPY . /fmtda
RUN pip install --no-cache-dir /fmtda
"""

HEAD = """\
# A machine's folder, as `fmtda deploy pack` packs it, in containers. Each runs as the account that owns its files:
#   {exports}
"""


def containerfile() -> str:
    """Write how the image is built."""
    return CONTAINERFILE.format(version=version("fmtda"))


def superlink(deployment: Deployment) -> str:
    """Write the compose file of the server's machine."""
    folder = f"{INSTALLED}/superlink"
    data = [deployment.data_dir] if deployment.data_dir else []
    shown = ["ca.crt", "superexec.secret"]
    return _compose(
        {
            SUPERLINK_SERVICE: _service(
                SUPERLINK,
                flower_commands.superlink(deployment),
                folder,
                sees=[*shown, "superlink.crt", "superlink.key"],
                writes="state",
                network="host",
            ),
            f"{SUPERLINK_SERVICE}-app": _service(
                APP,
                flower_commands.superlink_app(deployment),
                folder,
                sees=[*shown, "nodes"],
                writes="app",
                below="app",
                data=data,
                network="host",
            ),
            f"{SUPERLINK_SERVICE}-front": _service(
                FRONT,
                flower_commands.front(),
                folder,
                sees=["ca.crt", "front/nginx.conf", "front/server.crt", "front/server.key"],
                writes="front/run",
                below="front",
                network="host",
            ),
        }
    )


def supernode(deployment: Deployment, client: str) -> str:
    """Write the compose file of a client's machine."""
    folder, name = f"{INSTALLED}/{client}", f"fmtda-{client.lower()}"
    node = _service(
        NODE,
        flower_commands.supernode(deployment, client, f"{folder}/app/local"),
        folder,
        sees=["ca.crt", "node.key", "superexec.secret"],
        writes="state",
    )
    app = _service(
        APP,
        flower_commands.supernode_app(deployment, client),
        folder,
        sees=["superexec.secret"],
        writes="app",
        below="app",
        data=[deployment.data_dir] if deployment.data_dir else [],
        network=f"service:{name}",
    )
    return _compose({name: node, f"{name}-app": app})


def _service(
    account: str,
    command: list[list[str]],
    folder: str,
    sees: list[str],
    writes: str,
    below: str = "",
    data: list[str] | None = None,
    network: str = "",
) -> dict[str, Any]:
    """Describe one container; of the machine's folder it reads `sees` and writes to `writes`."""
    return {
        "image": f"fmtda:{version('fmtda')}",
        "command": list(chain.from_iterable(command)),
        "user": f"${{{_variable(account)}:?}}",
        "working_dir": f"{folder}/{below}" if below else folder,
        "volumes": [
            *(f"./{path}:{folder}/{path}:ro" for path in sees),
            f"./{writes}:{folder}/{writes}",
            *(f"{path}:{path}:ro" for path in data or []),
        ],
        "environment": {
            "HOME": f"{folder}/{writes}",
            "FLWR_HOME": f"{folder}/{writes}/flwr",
            "FMTDA_CACHE": f"{folder}/{writes}/cache",
            **FLOWER_OFF,
        },
        "read_only": True,
        "tmpfs": ["/tmp"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
        **({"network_mode": network} if network else {}),
    }


def _compose(services: dict[str, dict[str, Any]]) -> str:
    """Write services. YAML takes JSON's values, and JSON quotes whatever is in them."""
    variables = sorted({str(service["user"])[2:-3] for service in services.values()})
    exports = " ".join(f"{name}=$(id -u {_account(name)}):$(id -g {_account(name)})" for name in variables)
    text = HEAD.format(exports=f"export {exports}") + "services:\n"
    for name, service in services.items():
        lines = [f"    {key}: {json.dumps(value)}" for key, value in service.items()]
        text += f"  {name}:\n" + "\n".join(lines) + "\n"
    return text


def _variable(account: str) -> str:
    """Name the variable that says by which numbers the host knows an account."""
    return account.replace("-", "_").upper()


def _account(variable: str) -> str:
    return variable.replace("_", "-").lower()
