"""A simulation from checked settings to its table: what `fmtda simulate` and `fmtda join` end with."""

import json
from contextlib import closing
from pathlib import Path

from rich.console import Console

from fmtda.face.given import refuse, resume_line, stop
from fmtda.face.report.command import end_with_report
from fmtda.protocol.settings import Settings, SettingsError


def carry_out_simulation(settings: Settings, console: Console, client_cpus: float, client_gpus: float) -> None:
    """Run it with progress, and print its table; what can't go on ends with one line."""
    from fmtda.domains.examples import DataError
    from fmtda.face.progress import Bars
    from fmtda.face.run_table import print_run
    from fmtda.server.metrics import metric_of
    from fmtda.server.progress import Lines
    from fmtda.server.rounds import RunStopped
    from fmtda.server.writing import WriteError
    from fmtda.simulation.flower_engine import simulate

    metric = metric_of(settings)
    progress = Bars(console, settings.rounds, metric) if console.is_terminal else Lines(metric)
    resume = resume_line(settings, client_cpus, client_gpus)
    try:
        with closing(progress):
            simulate(settings, progress, client_cpus, client_gpus, resume)
    except (SettingsError, DataError) as error:
        refuse(error)
    except (WriteError, RunStopped) as error:
        stop(error, resume)
    path = Path(settings.output)
    print_run(console, json.loads((path / "summary.json").read_text()), path)
    end_with_report(console, path)
