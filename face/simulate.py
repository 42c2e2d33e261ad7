"""Adapts on simulated clients, from settings to the table of what was reached: ``fmtda simulate``."""

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fmtda.face.checked_settings import checked_settings
from fmtda.face.client_resources import ClientCPUs, ClientGPUs, check_resources, resume_line
from fmtda.face.console import open_console
from fmtda.face.refusals import refuse, stop
from fmtda.face.report.command import end_with_report
from fmtda.face.setting_options import (
    ConfigFile,
    Data,
    DataDir,
    NewRun,
    ResumedRun,
    Rounds,
    Seed,
    SettingPairs,
    settings_given,
)
from fmtda.protocol.settings import RunSettings, SettingsError
from fmtda.strategies.registry import ADAPTING


def simulate(
    data: Data = None,
    data_dir: DataDir = None,
    source: Annotated[str | None, typer.Option(help="the labelled domain on the server, e.g. mnist")] = None,
    targets: Annotated[str | None, typer.Option(help="the clients' domains, e.g. mnist-m,svhn,usps")] = None,
    strategy: Annotated[
        str | None,
        typer.Option(help=f"federated algorithm: {', '.join(ADAPTING)}, or package.module:Class"),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="default, or paper: the published algorithm alone")] = None,
    clients: Annotated[
        int | None, typer.Option(help="simulated clients, spread over the targets; default: one each")
    ] = None,
    rounds: Rounds = None,
    seed: Seed = None,
    output: NewRun = None,
    resume: ResumedRun = None,
    config: ConfigFile = None,
    pairs: SettingPairs = None,
    client_cpus: ClientCPUs = 1.0,
    client_gpus: ClientGPUs = 0.0,
) -> None:
    """Train and adapt on simulated clients, on this machine or on the Ray cluster named by RAY_ADDRESS.

    Examples:

    - `fmtda simulate`  (embedded digits, about five minutes on two cores, no download)

    - `fmtda simulate --preset paper --rounds 5`

    - `fmtda simulate --data digit-five --data-dir ~/data --source mnist --targets mnist-m,svhn,usps --rounds 5`

    - `fmtda simulate --clients 40 -c data.partition=dirichlet -c data.alpha=0.3`

    - `fmtda simulate --config run.toml -c rounds=5`  (settings from a file, one of them changed)

    - `fmtda simulate --resume runs/20260101-120000-dualadapt-digits`

    Every setting, its meaning and its range: docs/configuration.md.
    """
    console = open_console()
    named = {
        "data.name": data,
        "data.dir": str(data_dir.expanduser().absolute()) if data_dir else None,
        "data.source": source,
        "data.targets": targets,
        "strategy": strategy,
        "preset": preset,
        "clients": clients,
        "rounds": rounds,
        "seed": seed,
        "output": str(output) if output else None,
    }
    settings = checked_settings(settings_given(config, pairs, named), resume, "adaptation")
    check_resources(settings, client_cpus, client_gpus)

    carry_out_simulation(settings, console, client_cpus, client_gpus)


def carry_out_simulation(settings: RunSettings, console: Console, client_cpus: float, client_gpus: float) -> None:
    """Simulate with progress, and print the table of what was reached; what can't go on ends with one line."""
    from fmtda.domains.examples import DataError
    from fmtda.face.progress import Bars
    from fmtda.face.run_table import print_run
    from fmtda.server.progress import Lines
    from fmtda.server.run_directory import WriteError
    from fmtda.server.workload import RunStopped
    from fmtda.server.workload_kinds import metric_of
    from fmtda.simulation import flower_engine

    metric = metric_of(settings)
    progress = Bars(console, settings.rounds, metric) if console.is_terminal else Lines(metric)
    resume = resume_line(settings, client_cpus, client_gpus)
    try:
        with closing(progress):
            flower_engine.simulate(settings, progress, client_cpus, client_gpus, resume)
    except (SettingsError, DataError) as error:
        refuse(error)
    except (WriteError, RunStopped) as error:
        stop(error, resume)
    path = Path(settings.output)
    print_run(console, json.loads((path / "summary.json").read_text()), path)
    end_with_report(console, path)
