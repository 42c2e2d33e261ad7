"""Writes the compose files, one a machine, and how the image is built that all of them run."""

import json
from importlib.metadata import version
from itertools import chain

from fmtda.face.deploy import flower_commands
from fmtda.face.deploy.deployment import Deployment

MOUNTED = "/deployment"
"""The machine's folder, inside its container."""

CONTAINERFILE = """\
# The image of server and clients. In a checkout of fmtda:
#   docker build -t fmtda:{version} -f THIS_FILE .
FROM python:3.11-slim
COPY . /fmtda
RUN pip install --no-cache-dir /fmtda
"""


def containerfile() -> str:
    """Write how the image is built."""
    return CONTAINERFILE.format(version=version("fmtda"))


def superlink(deployment: Deployment) -> str:
    """Write the compose file of the server's machine."""
    port = f"{deployment.port}:{deployment.port}"
    words = chain.from_iterable(flower_commands.superlink(deployment))
    return _compose("superlink", list(words), deployment.data_dir, {"ports": [port]})


def supernode(deployment: Deployment, client: str) -> str:
    """Write the compose file of a client's machine."""
    words = chain.from_iterable(flower_commands.supernode(deployment, client, f"{MOUNTED}/local"))
    return _compose(f"supernode-{client.lower()}", list(words), deployment.data_dir, {})


def _compose(name: str, words: list[str], data_dir: str, more: dict[str, list[str]]) -> str:
    """Write one service. YAML takes JSON's values, and JSON quotes whatever is in them."""
    volumes = [f".:{MOUNTED}", *([f"{data_dir}:{data_dir}:ro"] if data_dir else [])]
    service = {
        "image": f"fmtda:{version('fmtda')}",
        "command": words,
        "user": "${FMTDA_USER:-1000:1000}",
        "working_dir": MOUNTED,
        "volumes": volumes,
        "environment": {"FLWR_HOME": f"{MOUNTED}/flwr", "FMTDA_CACHE": f"{MOUNTED}/cache"},
        "restart": "unless-stopped",
        **more,
    }
    lines = [f"    {key}: {json.dumps(value)}" for key, value in service.items()]
    head = "# FMTDA_USER is the owner of this folder as UID:GID; it alone can read the key in it.\n"
    return f"{head}services:\n  {name}:\n" + "\n".join(lines) + "\n"
