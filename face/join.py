"""Lets a finished or stopped simulation go on with one more domain, in a directory of its own: ``fmtda join``."""

from pathlib import Path
from typing import Annotated

import typer

from fmtda.face.client_resources import ClientCPUs, ClientGPUs, check_resources
from fmtda.face.console import open_console
from fmtda.face.file_names import file_name
from fmtda.face.refusals import refuse
from fmtda.face.setting_options import ConfigFile, settings_given
from fmtda.face.simulate import carry_out_simulation
from fmtda.protocol.settings import SettingsError


def join(
    run: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="run directory of fmtda simulate, finished or stopped")
    ],
    domain: Annotated[str, typer.Option(help="the domain that joins, new to the run")],
    clients: Annotated[int, typer.Option(min=1, help="its clients")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="rounds after the one in which it joins")] = 5,
    output: Annotated[Path | None, typer.Option(help="new run directory; default: RUN_DIR-with-DOMAIN")] = None,
    config: ConfigFile = None,
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            "--set", "-c", metavar="KEY=VALUE", help="how newcomers join, how long to wait, what is shown; repeatable"
        ),
    ] = None,
    client_cpus: ClientCPUs = 1.0,
    client_gpus: ClientGPUs = 0.0,
) -> None:
    """Let a new domain's clients join a simulated run; the run itself stays as it is.

    A copy of it goes on: the new clients upload their mixture, the server finds the nearest known domains by it, and
    the blend of their local classifiers is what the new ones start from. What is interrupted goes on with
    `fmtda simulate --resume`.

    Examples:

    - `fmtda join runs/20260101-120000-dualadapt-digits --domain street`

    - `fmtda join RUN_DIR --domain svhn --clients 4 --rounds 10 -c dualadapt.joining.rounds=5`

    What happens, and what it brings: docs/joining.md.
    """
    console = open_console()
    changes = settings_given(config, pairs)

    from fmtda.domains.examples import DataError
    from fmtda.server import run_directory, startup
    from fmtda.server.branching import branch, with_joining

    path = run.expanduser().absolute()
    place = (output.expanduser() if output else path.with_name(f"{path.name}-with-{file_name(domain)}")).absolute()
    try:
        settings = with_joining(path, domain, clients, rounds, changes)
        settings = settings.changed({"output": str(place), "resume": True})
        run_directory.refuse_unusable_output(place)
        startup.check_source(settings)
        startup.check_simulation(settings)
        check_resources(settings, client_cpus, client_gpus)
        branch(path, settings)
    except (SettingsError, DataError) as error:
        refuse(error)
    carry_out_simulation(settings, console, client_cpus, client_gpus)
