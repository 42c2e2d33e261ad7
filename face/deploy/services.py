"""Writes the systemd units that run SuperLink and SuperNodes as services of plain machines."""

import shlex
from itertools import chain

from fmtda.face.deploy import flower_commands
from fmtda.face.deploy.deployment import INSTALLED, Deployment

UNIT = """\
# Goes to /etc/systemd/system/{name}.service. This folder lies at {folder} and belongs to the user fmtda, and
# fmtda is installed in {installed}/venv.
[Unit]
Description={description}
Wants=network-online.target
After=network-online.target

[Service]
User=fmtda
WorkingDirectory={folder}
Environment=PATH={installed}/venv/bin:/usr/bin:/bin FLWR_HOME={folder}/flwr FMTDA_CACHE={folder}/cache
ExecStart={installed}/venv/bin/{command}
Restart=always
RestartSec=10
NoNewPrivileges=true
ProtectSystem=strict
ReadWritePaths={folder}
PrivateTmp=true

[Install]
WantedBy=multi-user.target
"""


def superlink(deployment: Deployment) -> str:
    """Write the unit of the server's machine."""
    folder = f"{INSTALLED}/superlink"
    return _unit("fmtda-superlink", "Flower SuperLink of fmtda", folder, flower_commands.superlink(deployment))


def supernode(deployment: Deployment, client: str) -> str:
    """Write the unit of a client's machine."""
    folder = f"{INSTALLED}/{client}"
    words = flower_commands.supernode(deployment, client, f"{folder}/local")
    return _unit(f"fmtda-{client}", f"Flower SuperNode of fmtda, domain {client}", folder, words)


def _unit(name: str, description: str, folder: str, command: list[list[str]]) -> str:
    words = shlex.join(chain.from_iterable(command))
    return UNIT.format(name=name, description=description, folder=folder, installed=INSTALLED, command=words)
