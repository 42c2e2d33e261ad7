"""A simulation from checked settings to its table: what `fmtda simulate` and `fmtda join` end with."""

import json
from contextlib import closing
from pathlib import Path

from rich.console import Console

from fmtda.given import refuse, resume_line, stop
from fmtda.report.command import end_with_report
from protocol.settings import Settings, SettingsError


def carry_out_simulation(settings: Settings, console: Console, client_cpus: float, client_gpus: float) -> None:
    """Run it with progress, and print its table; what can't go on ends with one line."""
    from domains.examples import DataError
    from fmtda.progress import Bars
    from fmtda.run_table import print_run
    from fmtda.simulation import simulate
    from server.metrics import metric_of
    from server.progress import Lines
    from server.rounds import RunStopped
    from server.writing import WriteError

    metric = metric_of(settings)
    progress = Bars(console, settings.rounds, metric) if console.is_terminal else Lines(metric)
    try:
        with closing(progress):
            simulate(settings, progress, client_cpus, client_gpus)
    except (SettingsError, DataError) as error:
        refuse(error)
    except (WriteError, RunStopped) as error:
        stop(error, resume_line(settings, client_cpus, client_gpus))
    path = Path(settings.output)
    print_run(console, json.loads((path / "summary.json").read_text()), path)
    end_with_report(console, path)
