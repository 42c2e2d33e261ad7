"""Writes the systemd units that run a deployment as services of plain machines, each with an account of its own."""

import shlex
from itertools import chain

from fmtda.face.deploy import flower_commands
from fmtda.face.deploy.deployment import INSTALLED, SUPERLINK_SERVICE, Deployment
from fmtda.face.deploy.machines import APP, FRONT, NODE, SUPERLINK
from fmtda.protocol.telemetry import FLOWER_OFF

UNIT = """\
# Goes to /etc/systemd/system/{name}.service. The machine's folder lies at {folder},
# as `fmtda deploy pack` packs it, and fmtda is installed in {installed}/venv.
[Unit]
Description={description}
Wants=network-online.target
After=network-online.target

[Service]
User={account}
WorkingDirectory={folder}{below}
Environment=PATH={installed}/venv/bin:/usr/sbin:/usr/bin:/bin HOME={writes}
Environment=FLWR_HOME={writes}/flwr FMTDA_CACHE={writes}/cache
Environment={quiet}
ExecStart={command}
Restart=always
RestartSec=10

ReadWritePaths={writes}
UMask=0027
NoNewPrivileges=true
CapabilityBoundingSet={capability}
AmbientCapabilities={capability}
ProtectSystem=strict
ProtectHome=read-only
ProtectProc=invisible
ProtectClock=true
ProtectHostname=true
ProtectControlGroups=true
ProtectKernelLogs=true
ProtectKernelModules=true
ProtectKernelTunables=true
PrivateTmp=true
{devices}
LockPersonality=true
RemoveIPC=true
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
{hidden}
[Install]
WantedBy=multi-user.target
"""

NO_DEVICES = "PrivateDevices=true"
GPU_ALONE = "DevicePolicy=closed\nDeviceAllow=char-nvidia* rw"
"""Where torch may compute on a GPU."""

FIRST_FREE_PORT = 1024
"""Below it, only who may bind privileged ports can listen."""


def superlink(deployment: Deployment) -> dict[str, str]:
    """Write the units of the server's machine, by their file names."""
    folder = f"{INSTALLED}/superlink"
    binds = "CAP_NET_BIND_SERVICE" if deployment.port < FIRST_FREE_PORT else ""
    programs = f"{INSTALLED}/venv/bin/"
    units = {
        SUPERLINK_SERVICE: _unit(
            SUPERLINK_SERVICE,
            "Flower SuperLink of fmtda, on loopback alone",
            SUPERLINK,
            folder,
            flower_commands.superlink(deployment),
            writes=f"{folder}/state",
            programs=programs,
        ),
        f"{SUPERLINK_SERVICE}-app": _unit(
            f"{SUPERLINK_SERVICE}-app",
            "ServerApps of fmtda, without the SuperLink's key",
            APP,
            folder,
            flower_commands.superlink_app(deployment),
            writes=f"{folder}/app",
            below="app",
            hidden=("superlink.key", "state", "front"),
            devices=GPU_ALONE,
            programs=programs,
        ),
        f"{SUPERLINK_SERVICE}-front": _unit(
            f"{SUPERLINK_SERVICE}-front",
            "What clients reach of fmtda: nginx before the SuperLink",
            FRONT,
            folder,
            flower_commands.front(),
            writes=f"{folder}/front/run",
            below="front",
            hidden=("superlink.key", "superexec.secret", "state", "app"),
            capability=binds,
            programs="/usr/sbin/",
        ),
    }
    return _named(units)


def supernode(deployment: Deployment, client: str) -> dict[str, str]:
    """Write the units of a client's machine, by their file names."""
    folder, name = f"{INSTALLED}/{client}", f"fmtda-{client}"
    programs = f"{INSTALLED}/venv/bin/"
    units = {
        name: _unit(
            name,
            f"Flower SuperNode of fmtda, domain {client}",
            NODE,
            folder,
            flower_commands.supernode(deployment, client, f"{folder}/app/local"),
            writes=f"{folder}/state",
            hidden=("app",),
            programs=programs,
        ),
        f"{name}-app": _unit(
            f"{name}-app",
            f"ClientApps of fmtda, domain {client}, without the node's key",
            APP,
            folder,
            flower_commands.supernode_app(deployment, client),
            writes=f"{folder}/app",
            below="app",
            hidden=("node.key", "state"),
            devices=GPU_ALONE,
            programs=programs,
        ),
    }
    return _named(units)


def _named(units: dict[str, str]) -> dict[str, str]:
    return {f"{name}.service": text for name, text in units.items()}


def _unit(
    name: str,
    description: str,
    account: str,
    folder: str,
    command: list[list[str]],
    writes: str,
    programs: str,
    below: str = "",
    hidden: tuple[str, ...] = (),
    capability: str = "",
    devices: str = NO_DEVICES,
) -> str:
    """Write one unit; `writes` is the one folder that it may write to, `hidden` what it can't even see."""
    return UNIT.format(
        name=name,
        description=description,
        account=account,
        folder=folder,
        below=f"/{below}" if below else "",
        writes=writes,
        installed=INSTALLED,
        quiet=" ".join(f"{variable}={value}" for variable, value in FLOWER_OFF.items()),
        command=programs + shlex.join(chain.from_iterable(command)),
        capability=capability,
        devices=devices,
        hidden="".join(f"InaccessiblePaths=-{folder}/{path}\n" for path in hidden),
    )
