"""Leads from a run config to a finished run directory, as the Flower ServerApp."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.superlink.grid import InMemoryGrid

from fmtda.protocol.records import to_record
from fmtda.protocol.runtime import prepare_to_compute
from fmtda.protocol.settings import RunSettings
from fmtda.protocol.tables import Scalar, SettingsError
from fmtda.server import checkpoints
from fmtda.server.conversation import Conversation
from fmtda.server.loop import Loop
from fmtda.server.progress import Lines, Progress
from fmtda.server.run_directory import RunDirectory
from fmtda.server.startup import check_source, effective_settings
from fmtda.server.workload_kinds import metric_of, workload_of
from fmtda.strategies.registry import algorithm

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run under Flower's own command, ``flwr run``."""
    settings = effective_settings(cast(Mapping[str, Scalar], context.run_config))
    check_source(settings)
    if not settings.output:
        settings = settings.changed({"output": str(new_output(settings))})
    run(grid, settings, Lines(metric_of(settings)), deployed=not isinstance(grid, InMemoryGrid))


def new_output(settings: RunSettings) -> Path:
    """Name a fresh folder for a run that names none: ``runs/DATE-STRATEGY-DATA`` below the working directory."""
    words = [settings.strategy.rpartition(":")[2], settings.data.name.rpartition(":")[2]]
    words = [settings.workload, *words] if settings.workload != settings.kind else words
    return Path.cwd() / "runs" / time.strftime(f"%Y%m%d-%H%M%S-{'-'.join(words)}")


def run(grid: Grid, settings: RunSettings, progress: Progress, deployed: bool = False) -> RunDirectory:
    """Run a federation from the first message to summary.json, or continue one from its last whole round.

    Parameters
    ----------
    grid
        Flower's, or one like it.
    settings
        Effective ones, with an absolute ``output``.
    progress
        Who is told what happens.
    deployed
        Whether the clients are other people's, on machines of their own (`server.conversation.Conversation`).

    Raises
    ------
    SettingsError, DataError
        If the federation or the data don't fit the settings.
    RunStopped, WriteError
        If the run can't go on; what was reached stays in the run directory.
    """
    if not algorithm(settings.strategy).federated:
        raise SettingsError(f"strategy={settings.strategy}: that is no federation; run it with fmtda generate --local")
    prepare_to_compute(settings.server_threads)
    with RunDirectory.at_work(settings) as directory:
        _play(directory, Conversation(grid, settings, progress, deployed))
    return directory


def _play(directory: RunDirectory, conversation: Conversation) -> None:
    """Play a run, or what is left of it, in a directory that nobody else works in."""
    settings, progress = conversation.settings, conversation.progress
    if directory.left_by:
        progress.note(f"{directory.left_by} left this run without an end")
    conversation.gather()
    checkpoint = checkpoints.latest(directory.checkpoints) if settings.resume else None
    first_round = checkpoint.round + 1 if checkpoint else 0
    conversation.hold_back(max(1, first_round))
    workload = workload_of(settings, conversation, directory)
    strategy = workload.strategy()
    if checkpoint is None:
        directory.begin_at(first_round)
        arrays = workload.begin()
    else:
        arrays = to_record(checkpoint.model)
        workload.restore(checkpoint)
        strategy.load_state(checkpoint.state)
        directory.begin_at(first_round)
        progress.note(f"continuing after round {checkpoint.round}")
    if first_round <= 1:
        arrays = strategy.initial(arrays)
    arrays = Loop(conversation, directory, workload, strategy).play(first_round, arrays)
    workload.finish(arrays)
    directory.close()
    directory.write_summary(workload.summary(directory.metrics(), directory.wall_seconds()))
    progress.note(f"run directory: {directory.path}")
    progress.note(f"look at it with: fmtda report {directory.path}")
