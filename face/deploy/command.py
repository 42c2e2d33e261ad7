"""Writes the folder with which clients on machines of their own are set up: ``fmtda deploy init``."""

from pathlib import Path
from typing import Annotated

import typer

from fmtda.face.refusals import refuse
from fmtda.protocol.settings import SettingsError

deploy_cli = typer.Typer(help="Set up a federation of real clients, on machines of their own.", no_args_is_help=True)


@deploy_cli.callback()
def deploy() -> None:
    """Set up a federation of real clients, on machines of their own."""


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
    port: Annotated[int, typer.Option(min=1, max=65535, help="the server's port")] = 8000,
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

    names = tuple(name.strip() for name in clients.split(",") if name.strip())
    try:
        found = family_of(names, data)
        refuse_source_among(names, found, source)
        if data_dir is None:
            data_dir = DATA_DIR if needs_files(found, names) else ""
        write(Deployment(server, names, found.name, data_dir, port, node_port, source), folder.expanduser(), force)
    except (SettingsError, DataError) as error:
        refuse(error)
    print(f"fmtda: {folder / 'README.md'} has the commands, in order")
