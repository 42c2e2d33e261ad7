"""Sets up clients on machines of their own, and what comes after: ``fmtda deploy init``, ``register``, ``check``."""

from pathlib import Path
from typing import Annotated

import typer

from fmtda.face.refusals import FAILED, refuse
from fmtda.protocol.settings import SettingsError

deploy_cli = typer.Typer(no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="folder that `fmtda deploy init` wrote")]


@deploy_cli.callback()
def deploy() -> None:
    """Set up a federation of real clients, on machines of their own.

    In this order:

    - `fmtda deploy init DIR --server HOST --clients A,B`  (keys, certificates, services, and a page with every command)

    - `fmtda deploy pack DIR`  (one archive a machine)

    - `fmtda deploy register`  (on the server, once its SuperLink runs)

    - `fmtda deploy check`  (on a client's machine: can it take part?)

    Later: `fmtda deploy add DIR C` for a new client, `fmtda deploy renew DIR` before the server's certificate ends.
    """


@deploy_cli.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="folder to write")],
    server: Annotated[str, typer.Option(help="host name or IP address by which the clients reach the server")],
    clients: Annotated[str, typer.Option(help="comma list of the clients, each by the domain that it holds")],
    data: Annotated[str | None, typer.Option(help="family of the domains; default: the one that has them")] = None,
    source: Annotated[
        str, typer.Option(help="the server's labelled domain; default: the family's", show_default=False)
    ] = "",
    data_dir: Annotated[
        str | None, typer.Option(help="folder with the data files, on each machine; default: /data")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="the server's port, for the clients")] = 8000,
    superlink_port: Annotated[
        int, typer.Option(min=1, max=65535, help="port of the SuperLink on the server's own loopback")
    ] = 8001,
    node_port: Annotated[
        int, typer.Option(min=1, max=65535, help="first of the ports that the clients use on their own machines")
    ] = 9094,
    force: Annotated[bool, typer.Option("--force", help="overwrite what is there; its keys are lost")] = False,
) -> None:
    """Write certificates, keys, services, compose files, and a page with the commands in order.

    Examples:

    - `fmtda deploy init federation --server fed.example.org --clients svhn,usps`

    - `fmtda deploy init federation --server 192.0.2.7 --clients clinic-a,clinic-b --data image-folders`

    What comes out and how to go on: `DIR/README.md` and docs/deploy.md.
    """
    from fmtda.domains.examples import DataError
    from fmtda.face.deploy.deployment import DATA_DIR, Deployment, family_of, needs_files, refuse_source_among
    from fmtda.face.deploy.folder import write

    names = _names(clients)
    try:
        found = family_of(names, data)
        refuse_source_among(names, found, source)
        if data_dir is None:
            data_dir = DATA_DIR if needs_files(found, names) else ""
        deployment = Deployment(server, names, found.name, data_dir, port, node_port, source, superlink_port)
        write(deployment, folder.expanduser(), force)
    except (SettingsError, DataError) as error:
        refuse(error)
    print(f"fmtda: {folder / 'README.md'} has the commands, in order")


@deploy_cli.command()
def add(
    folder: Folder,
    clients: Annotated[str, typer.Argument(metavar="CLIENTS", help="comma list of the new clients, by their domains")],
) -> None:
    """Add clients to a deployment; the keys of the others, the certificates and the server's settings stay.

    Then pack and unpack the new client's archive, bring its public key to the server, and register it there.

    Example:

    - `fmtda deploy add federation mnist-m`
    """
    from fmtda.domains.examples import DataError
    from fmtda.face.deploy import folder as folders
    from fmtda.face.deploy.deployment import family_of, refuse_source_among
    from fmtda.face.deploy.deployment_file import read_deployment

    names = _names(clients)
    try:
        there = read_deployment(folder)
        refuse_source_among(names, family_of(names, there.data), there.source)
        folders.add(there, names, folder)
    except (SettingsError, DataError) as error:
        refuse(error)
    for name in names:
        print(
            f"fmtda: {folder / 'clients' / name} goes to the new client; "
            f"{folder / 'superlink' / 'nodes' / name}.pub to the server, where `fmtda deploy register` registers it"
        )


@deploy_cli.command()
def renew(
    folder: Folder,
    now: Annotated[bool, typer.Option("--now", help="also where no certificate is near its end")] = False,
) -> None:
    """Tell until when the certificates hold, and renew the server's where one has 60 days left or fewer.

    The authority signs new ones and stays, so that clients keep their `ca.crt`. It needs `authority/ca.key`, so run it
    where that is kept, bring `superlink/` to the server again, and start SuperLink and front anew.

    Examples:

    - `fmtda deploy renew federation`

    - `fmtda deploy renew federation --now`  (a key of the server got into wrong hands)
    """
    from fmtda.face.deploy.deployment_file import read_deployment
    from fmtda.face.deploy.renewal import renew as renew_certificates

    try:
        ends = renew_certificates(read_deployment(folder), folder, now)
    except SettingsError as error:
        refuse(error)
    for name, until in ends.until.items():
        print(f"fmtda: {folder / name} holds until {until:%Y-%m-%d}{' (renewed)' if name in ends.renewed else ''}")
    if ends.renewed:
        print("fmtda: bring superlink/ to the server and restart SuperLink and front; clients change nothing")
    if ends.authority_is_near_the_end:
        print(
            f"fmtda: the authority itself ends soon: set up anew (fmtda deploy init {folder} --force); "
            "every machine then needs its folder again"
        )


@deploy_cli.command()
def pack(
    folder: Folder,
    output: Annotated[
        Path | None, typer.Option(help="folder for the archives; default: DIR/packed", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace archives that are there")] = False,
) -> None:
    """Pack one archive a machine: what it needs, owned by the accounts that need it, and nothing of another machine.

    Unpack as root, below /opt/fmtda, after making the accounts as the deployment's page says. An archive holds private
    keys: send it as you would send a password.

    Examples:

    - `fmtda deploy pack federation`

    - `tar -C /opt/fmtda -xpzf svhn.tar.gz`  (on the client's machine)
    """
    from fmtda.face.deploy.deployment_file import read_deployment
    from fmtda.face.deploy.packing import pack as pack_machines

    try:
        archives = pack_machines(read_deployment(folder), folder, output or folder / "packed", force)
    except SettingsError as error:
        refuse(error)
    for archive in archives:
        print(f"fmtda: {archive}")


@deploy_cli.command()
def register(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="the server's folder, `superlink`")] = Path("."),
) -> None:
    """Register the clients' keys with the running SuperLink, and write down which node is which client.

    Run it on the server. Keys that are registered already stay; `nodes/nodes.toml` says which node may be which client,
    and a run with `nodes-file` refuses any other.

    Example:

    - `fmtda deploy register /opt/fmtda/superlink`
    """
    from fmtda.face.deploy.registration import register as register_keys

    try:
        nodes = register_keys(folder)
    except SettingsError as error:
        refuse(error)
    for node, client in nodes.items():
        print(f"fmtda: node {node} is {client}")


@deploy_cli.command()
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="the client's folder")] = Path("."),
) -> None:
    """Look, on a client's machine, whether it can take part: versions, data, address, certificate, clock.

    Run it as the account that will read the data. The exit status is 1 where something is not as it must be.

    Examples:

    - `fmtda deploy check`  (in the client's folder)

    - `sudo -u fmtda-app fmtda deploy check /opt/fmtda/svhn`
    """
    from fmtda.face.deploy.checkup import look
    from fmtda.face.deploy.deployment_file import read_client

    try:
        client = read_client(folder)
    except SettingsError as error:
        refuse(error)
    good = True
    for found in look(client, folder):
        good = good and found.good
        print(f"{'good' if found.good else 'BAD '}  {found.subject:<8}  {found.found}")
    if not good:
        raise typer.Exit(FAILED)


def _names(clients: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in clients.split(",") if name.strip())
