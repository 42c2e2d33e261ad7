"""Writes the page of a deployment: every command to start and register it, in order, for this version of Flower.

A test follows it literally: each ``sh`` block in a new shell that begins in the deployment's folder.
"""

import shlex
from importlib.metadata import version

from fmtda.face.deploy import flower_commands
from fmtda.face.deploy.deployment import CONNECTION, INSTALLED, Deployment
from fmtda.face.deploy.machines import APP, FRONT, NODE, SUPERLINK
from fmtda.protocol.telemetry import FLOWER_OFF

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
The server has nginx too (Debian's package `nginx-light` will do). Port {port} of the server is open to the clients; the
clients need no open port. Clocks are set by NTP: Flower refuses a client that is 5 s ahead of the server, or 305 s
behind.

Started by hand, as below, all processes are of one account: good for a trial. To take part in earnest, start them
[as services](#as-services) or [as containers](#as-containers): there the code of the app runs as another account than
the process that holds the keys.

## 1. Start the server

The SuperLink listens on the server's own loopback, port {superlink_port}: who reaches it can start runs and register
keys.

```sh
cd superlink
{quiet}
mkdir -p state app front/run
{superlink}
```

It keeps registrations and runs in `state/superlink.db`, so it may be stopped and started again. What runs ServerApps:

```sh
mkdir -p superlink/app
cd superlink/app
{quiet}
{superlink_app}
```

The front, which clients reach at port {port}, passes on what SuperNodes send (`/v1/fleet/`), and refuses all else:

```sh
mkdir -p superlink/front/run
cd superlink/front
PATH="$PATH:/usr/sbin"
{front}
```

## 2. Register the clients' keys, on the server

```sh
cd superlink
fmtda deploy register
```

Only a registered key gets in. `{nodes_file}` then says which of Flower's nodes is which client, and a run lets each be
that one alone. A client that would rather not be sent a private key makes its own with
`ssh-keygen -t ecdsa -b 384 -N "" -f node.key`; its `node.key.pub` becomes `superlink/nodes/NAME.pub` before this step.

## 3. Start the SuperNodes, each on its machine

The node config says what the client holds: its domain, its data, and a folder for what stays with it. It needs to know
no other client. The second block runs its ClientApps.

{supernodes}

`fmtda deploy check`, in the client's folder, tells whether data, clock, versions and the server are as they must be.

## 4. Look who is there, on the server

```sh
cd superlink
export FLWR_HOME="$PWD/operator"
{quiet}
flwr supernode list {connection}
```

## 5. Run, on the server

`FMTDA` is the checkout of fmtda. The run directory is a new one in `superlink/app/runs/`, unless the run config names
`output`, an absolute path.

```sh
cd superlink
export FLWR_HOME="$PWD/operator"
{quiet}
flwr run "$FMTDA" {connection} --stream --run-config "nodes-file='$PWD/{nodes_file}'" --run-config {run_config}
```

Further keys go into the last quotes: `rounds=5`, `seed=1`, or `resume=true output="..."` to go on with a run. Ctrl-C
ends the stream of the log, not the run: `flwr log RUN {connection}` shows it again, `flwr stop RUN {connection}` ends
the run, `flwr ls {connection}` lists the runs.

## As services

`fmtda deploy pack` packs an archive a machine, `packed/superlink.tar.gz` and `packed/NAME.tar.gz`. On a client's
machine, as root, with fmtda installed in `{installed}/venv`:

```
useradd --system --no-create-home --shell /usr/sbin/nologin {node}
useradd --system --no-create-home --shell /usr/sbin/nologin {app}
tar -C {installed} -xpzf NAME.tar.gz
cp {installed}/NAME/*.service /etc/systemd/system/
systemctl enable --now fmtda-NAME fmtda-NAME-app
```

On the server the accounts are `{superlink_account}`, `{front_account}` and `{app}`, the archive is
`superlink.tar.gz`, and the services are `fmtda-superlink`, `fmtda-superlink-app` and `fmtda-superlink-front`.
`{app}` has to be able to read the data; it can't read a key. Steps 2, 4 and 5 as root in `{installed}/superlink`.

## As containers

Accounts and archive as above. `docker build -t fmtda:{fmtda} -f Containerfile CHECKOUT`, then in the machine's folder
the `export` that stands on top of `compose.yaml`, and `docker compose up -d`. On the server the containers share the
machine's network, so that steps 2, 4 and 5 are as above.
"""

SUPERNODE = """\
```sh
cd clients/{client}
{quiet}
mkdir -p state app
{command}
```

```sh
mkdir -p clients/{client}/app
cd clients/{client}/app
{quiet}
{app_command}
```
"""

QUIET = "export " + " ".join(f"{variable}={value}" for variable, value in FLOWER_OFF.items())


def page(deployment: Deployment) -> str:
    """Write the page as Markdown."""
    rows = [f"| `clients/{client}/` | the client that holds `{client}` |" for client in deployment.clients]
    supernodes = [
        SUPERNODE.format(
            client=client,
            quiet=QUIET,
            command=_lines(flower_commands.supernode(deployment, client, "local")),
            app_command=_lines(flower_commands.supernode_app(deployment, client)),
        )
        for client in deployment.clients
    ]
    return PAGE.format(
        count=len(deployment.clients),
        server=deployment.server,
        port=deployment.port,
        superlink_port=deployment.superlink_port,
        flower=version("flwr"),
        fmtda=version("fmtda"),
        quiet=QUIET,
        connection=CONNECTION,
        installed=INSTALLED,
        nodes_file=flower_commands.NODES_FILE,
        node=NODE,
        app=APP,
        superlink_account=SUPERLINK,
        front_account=FRONT,
        client_rows="\n".join(rows),
        superlink=_lines(flower_commands.superlink(deployment)),
        superlink_app=_lines(flower_commands.superlink_app(deployment)),
        front=shlex.join(word for words in flower_commands.front() for word in words),
        supernodes="\n".join(supernodes).rstrip(),
        run_config=shlex.quote(flower_commands.run_config(deployment)),
    )


def _lines(command: list[list[str]]) -> str:
    """Spread a command over several lines, an option a line."""
    return " \\\n  ".join(shlex.join(words) for words in command)
