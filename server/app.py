"""The Flower ServerApp: from a run config to a finished run directory."""

import time
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fmtda.protocol.generative_settings import LOCAL, GenerativeSettings
from fmtda.protocol.records import to_record
from fmtda.protocol.runtime import prepare_to_compute
from fmtda.protocol.settings import RunSettings, SettingsError
from fmtda.server import checkpoints
from fmtda.server.adaptation import AdaptationRun
from fmtda.server.generative import GenerativeRun
from fmtda.server.metrics import metric_of
from fmtda.server.progress import Lines, Progress
from fmtda.server.roster import Roster
from fmtda.server.rounds import Federation
from fmtda.server.run_directory import RunDirectory
from fmtda.server.startup import check_source, effective_settings
from fmtda.server.workload import Workload
from fmtda.strategies.memory import remind

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Flower's own way in: ``flwr run``."""
    settings = effective_settings(context.run_config)
    if settings.strategy == LOCAL:
        raise SettingsError("strategy=local: that is no federation; run it with fmtda generate --local")
    check_source(settings)
    if not settings.output:
        settings = settings.changed(output=str(new_output(settings)))
    run(grid, settings, Lines(metric_of(settings)))


def new_output(settings: RunSettings) -> Path:
    """A fresh folder for a run that names none: ``runs/DATE-STRATEGY-DATA`` below the working directory."""
    words = [settings.strategy, settings.data]
    words = [settings.workload, *words] if isinstance(settings, GenerativeSettings) else words
    return Path.cwd() / "runs" / time.strftime(f"%Y%m%d-%H%M%S-{'-'.join(words)}")


def run(grid: Grid, settings: RunSettings, progress: Progress) -> RunDirectory:
    """Run a federation from the first message to summary.json, or continue one from its last whole round.

    Raises
    ------
    SettingsError, DataError
        If the federation or the data don't fit the settings.
    RunStopped, WriteError
        If the run can't go on; what was reached stays in the run directory.
    """
    prepare_to_compute(settings.server_threads)
    directory = RunDirectory.open(settings) if settings.resume else RunDirectory.create(settings)
    workload: Workload = (GenerativeRun if isinstance(settings, GenerativeSettings) else AdaptationRun)(settings)
    roster = Roster()
    federation = Federation(grid, roster, settings, directory, progress, workload)
    roster.wait(grid, settings)
    if problems := roster.call(federation.exchange, grid, settings, settings.timeout):
        raise SettingsError("\n".join(problems))

    checkpoint = checkpoints.latest(directory.checkpoints) if settings.resume else None
    federation.newcomers.restore(checkpoint.state if checkpoint else {})
    federation.first_round = checkpoint.round + 1 if checkpoint else 0
    federation.hold_back(max(1, federation.first_round))
    strategy = workload.strategy()
    if checkpoint is None:
        directory.cut_back(-1)
        arrays = workload.begin(federation)
    else:
        directory.cut_back(checkpoint.round)
        arrays = to_record(checkpoint.model)
        workload.restore(checkpoint)
        remind(strategy, checkpoint.state)
        progress.note(f"continuing after round {checkpoint.round}")
    if federation.first_round <= 1 and hasattr(strategy, "initial"):
        arrays = strategy.initial(arrays)
    arrays = federation.train(strategy, arrays)
    workload.finish(federation, arrays)
    if federation.tracker is not None:
        federation.tracker.close()
    directory.write_summary(workload.summary(directory.metrics(), directory.wall_seconds()))
    progress.note(f"run directory: {directory.path}")
    progress.note(f"look at it with: fmtda report {directory.path}")
    return directory
