"""Writes the page of a deployment: every command to start and register it, in order, for this version of Flower.

A test follows it literally: each ``sh`` block in a new shell that begins in the deployment's folder.
"""

import shlex
from importlib.metadata import version

from fmtda.face.deploy import flower_commands
from fmtda.face.deploy.deployment import CONNECTION, INSTALLED, Deployment

PAGE = """\
# fmtda: {count} clients of the server {server}

Written by `fmtda deploy init` for Flower {flower}. Every block below is for a new terminal that begins in this folder.
Where a machine has only its own part of it, leave out what leads there in `cd`.

| folder | goes to |
|---|---|
| `superlink/` | the server, {server} |
{client_rows}
| `authority/` | no machine: whoever has this key can pass for the server. Keep it offline |

Each machine has fmtda installed (`pip install` in a checkout, Python 3.11 or 3.12) and its virtual environment active.
Port {port} of the server is open to the clients; the clients need no open port.

**Who reaches port {port}** can also start runs and register nodes: Flower's open SuperLink knows no accounts. Let a
firewall admit the clients' addresses alone, or put a proxy in front that lets only `/v1/fleet/` through from outside.
A SuperNode runs the app that the server sends it, with the rights of its user: give it a user of its own.

## 1. Start the SuperLink, on the server

```sh
cd superlink
{superlink}
```

It keeps registrations and runs in `superlink.db`, so it may be stopped and started again.

## 2. Register the clients' keys, on the server

```sh
cd superlink
export FLWR_HOME="$PWD/flwr"
mkdir -p "$FLWR_HOME"
cat > "$FLWR_HOME/config.toml" <<END
[superlink.{connection}]
address = "{address}"
root-certificates = "$PWD/ca.crt"
END
{registrations}
```

Only a registered key gets in. A client that would rather not be sent a private key makes its own with
`ssh-keygen -t ecdsa -b 384 -N "" -f node.key`, and sends `node.key.pub` to be registered.

## 3. Start the SuperNodes, each on its machine

The node config says what the client holds: its domain, its data, and a folder for what stays with it. It needs to know
no other client.

{supernodes}

## 4. Look who is there, on the server

```sh
cd superlink
export FLWR_HOME="$PWD/flwr"
flwr supernode list {connection}
```

## 5. Run, on the server

`FMTDA` is the checkout of fmtda. The run directory is a new one in `superlink/runs/`, unless the run config names
`output`, an absolute path.

```sh
cd superlink
export FLWR_HOME="$PWD/flwr"
flwr run "$FMTDA" {connection} --stream --run-config {run_config}
```

Further keys go into the same quotes: `rounds=5`, `seed=1`, or `resume=true output="..."` to go on with a run.

## As services

`fmtda-superlink.service` and `fmtda-NAME.service` do steps 1 and 3 on machines with systemd. The machine's folder lies
below {installed} (`{installed}/superlink`, `{installed}/NAME`), belongs to a user `fmtda`, and fmtda is installed in
`{installed}/venv`. Copy the unit to `/etc/systemd/system/`, then `systemctl enable --now fmtda-NAME`.

## As containers

`docker build -t fmtda:{fmtda} -f Containerfile CHECKOUT`, then `docker compose up -d` in the machine's folder, for
steps 1 and 3. Steps 2, 4 and 5 as above.
"""

SUPERNODE = """\
```sh
cd clients/{client}
{command}
```
"""


def page(deployment: Deployment) -> str:
    """Write the page as Markdown."""
    rows = [f"| `clients/{client}/` | the client that holds `{client}` |" for client in deployment.clients]
    registrations = [
        f"flwr supernode register nodes/{client}.pub {CONNECTION} --name {client}" for client in deployment.clients
    ]
    supernodes = [
        SUPERNODE.format(client=client, command=_lines(flower_commands.supernode(deployment, client, "local")))
        for client in deployment.clients
    ]
    return PAGE.format(
        count=len(deployment.clients),
        server=deployment.server,
        port=deployment.port,
        address=deployment.superlink,
        flower=version("flwr"),
        fmtda=version("fmtda"),
        connection=CONNECTION,
        installed=INSTALLED,
        client_rows="\n".join(rows),
        superlink=_lines(flower_commands.superlink(deployment)),
        registrations="\n".join(registrations),
        supernodes="\n".join(supernodes).rstrip(),
        run_config=shlex.quote(flower_commands.run_config(deployment)),
    )


def _lines(command: list[list[str]]) -> str:
    """Spread a command over several lines, an option a line."""
    return " \\\n  ".join(shlex.join(words) for words in command)
