"""Trains a generative model over simulated clients, or alone on their pooled data: ``fmtda generate``."""

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated, cast

import typer

from fmtda.face.checked_settings import checked_settings
from fmtda.face.client_resources import ClientCPUs, ClientGPUs, check_resources, resume_line
from fmtda.face.console import open_console, say
from fmtda.face.refusals import INTERRUPTED, refuse, stop
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
from fmtda.generative.registry import MODELS
from fmtda.protocol.settings import GenerativeSettings, SettingsError
from fmtda.strategies.registry import GENERATING, POOLED, algorithm

NAMES = ", ".join(MODELS)


def generate(
    model: Annotated[
        str | None, typer.Argument(help=f"{NAMES}; may be left out with --resume", show_default=False)
    ] = None,
    data: Data = None,
    data_dir: DataDir = None,
    targets: Annotated[
        str | None, typer.Option(help="the clients' domains; default: one, shared by them (digits: handwritten)")
    ] = None,
    strategy: Annotated[str | None, typer.Option(help=f"federated algorithm: {', '.join(GENERATING)}")] = None,
    local: Annotated[
        bool, typer.Option("--local", help="no federation: one process, the clients' data pooled, as many steps")
    ] = False,
    clients: Annotated[int | None, typer.Option(help="simulated clients, spread over the targets")] = None,
    rounds: Rounds = None,
    seed: Seed = None,
    output: NewRun = None,
    resume: ResumedRun = None,
    config: ConfigFile = None,
    pairs: SettingPairs = None,
    client_cpus: ClientCPUs = 1.0,
    client_gpus: ClientGPUs = 0.0,
) -> None:
    """Train a generative model on simulated clients; no example leaves one.

    Needs the extra `generative`: `pip install -e '.[generative]'`.

    Examples:

    - `fmtda generate ddpm`  (embedded digits, grey, 16x16, four clients)

    - `fmtda generate ncsn --clients 4 -c data.partition=dirichlet -c data.alpha=0.3`  (each sees few of the classes)

    - `fmtda generate ddpm --targets blend,fonts,street,pen -c ddpm.colour=rgb`  (one domain a client)

    - `fmtda generate graph-nvp --data qm9 --data-dir DIR --clients 4 -c data.partition=scaffold -c data.target-limit=0`

    - `fmtda generate ddpm --local`  (the reference: the same number of gradient steps on pooled data)

    - `fmtda generate --resume runs/20260101-120000-ddpm-fedavg-digits`

    - `fmtda sample runs/20260101-120000-ddpm-fedavg-digits`  (pictures out of what was trained)

    What the steps are equal in, and every key: docs/generative.md and docs/configuration.md.
    """
    console = open_console()
    if model is None and resume is None:
        refuse(f"no model named; allowed are {NAMES}, as in fmtda generate {MODELS.names()[0]}")
    if model is not None and model not in MODELS:
        refuse(f"{model}: no such model; allowed are {NAMES}")
    if local and strategy is not None:
        refuse(f"--local and --strategy {strategy}: --local is no federation; give one of the two")
    named = {
        "workload": model,
        "data.name": data,
        "data.dir": str(data_dir.expanduser().absolute()) if data_dir else None,
        "data.targets": targets,
        "strategy": POOLED if local else strategy,
        "clients": clients,
        "rounds": rounds,
        "seed": seed,
        "output": str(output) if output else None,
    }
    settings = checked_settings(settings_given(config, pairs, named), resume, "generative")
    federated = algorithm(settings.strategy).federated
    if federated:
        check_resources(settings, client_cpus, client_gpus)

    from fmtda.domains.examples import DataError
    from fmtda.domains.registry import family, spec_of
    from fmtda.face.interruption import interruptible
    from fmtda.face.progress import Bars
    from fmtda.face.run_table import print_generated
    from fmtda.server.metrics import LOSS
    from fmtda.server.pooled import run_pooled
    from fmtda.server.progress import Lines
    from fmtda.server.run_directory import WriteError
    from fmtda.server.workload import RunStopped
    from fmtda.simulation.flower_engine import simulate

    go_on = resume_line(settings, client_cpus, client_gpus)
    progress = Bars(console, settings.rounds, LOSS) if console.is_terminal else Lines(LOSS)
    try:
        with closing(progress):
            if left_out := family(settings.data.name).account(spec_of(settings)):
                progress.note(left_out)
            if federated:
                simulate(settings, progress, client_cpus, client_gpus, go_on)
            else:
                with interruptible():
                    run_pooled(cast(GenerativeSettings, settings), progress)
    except (SettingsError, DataError) as error:
        refuse(error)
    except (WriteError, RunStopped) as error:
        stop(error, go_on)
    except KeyboardInterrupt:
        say(f"interrupted; continue with: {go_on}", sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    path = Path(settings.output)
    print_generated(console, json.loads((path / "summary.json").read_text()), path)
    end_with_report(console, path)
