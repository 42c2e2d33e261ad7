"""Trains the reference for federated runs: the same model in one process, on all clients' data, without Flower.

Equal gradient steps means: `rounds` x `training.steps` steps of `training.batch` examples here, and as many on every
client of a federation. One Adam runs through all of them. What a round is elsewhere, `training.steps` steps, is here
the distance between two updates of the moving average, two evaluations, two lines of metrics.jsonl and two checkpoints,
so that the run directory is the same.
"""

import copy
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fmtda.adaptation.batches import shuffled_batches
from fmtda.generative.training import LossNotFinite, descend, held_out_loss, step_sizes
from fmtda.protocol.moments import moments_of, restore_moments
from fmtda.protocol.runtime import prepare_to_compute
from fmtda.protocol.seeds import generator_for
from fmtda.protocol.settings import GenerativeSettings
from fmtda.server import checkpoints
from fmtda.server.generative import Results, loss_by_domain
from fmtda.server.pooled_data import held_out_by_client, pooled_examples
from fmtda.server.progress import Progress
from fmtda.server.run_directory import RunDirectory
from fmtda.server.workload import RunStopped


def run_pooled(settings: GenerativeSettings, progress: Progress) -> RunDirectory:
    """Train from the first step to summary.json, or continue from the last whole round.

    Raises
    ------
    SettingsError, DataError
        If the data or the checkpoint don't fit the settings.
    RunStopped, WriteError
        If the run can't go on; what was reached stays in the run directory.
    """
    prepare_to_compute(settings.server_threads)
    with RunDirectory.at_work(settings) as directory:
        _train(directory, settings, progress)
    return directory


def _train(directory: RunDirectory, settings: GenerativeSettings, progress: Progress) -> None:
    """Train in a directory that nobody else works in."""
    if directory.left_by:
        progress.note(f"{directory.left_by} left this run without an end")
    results = Results(settings)
    model = copy.deepcopy(results.model)
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.training.learning_rate, fused=True)
    checkpoint = checkpoints.latest(directory.checkpoints) if settings.resume else None
    if checkpoint is not None:
        results.restore(checkpoint)
        model.load_state_dict(checkpoint.model)
        restore_moments(optimiser, model, checkpoint.state)
        progress.note(f"continuing after round {checkpoint.round}")
    first_round = checkpoint.round + 1 if checkpoint else 1
    directory.begin_at(first_round)

    examples, _ = pooled_examples(settings)
    held_out = held_out_by_client(settings)
    for server_round in range(first_round, settings.rounds + 1):
        progress.stage(f"round {server_round}: training", settings.training.steps)
        generator = generator_for(settings.seed, "pooled", server_round, "generative training")
        began_round = time.perf_counter()
        try:
            loss = descend(
                model,
                optimiser,
                examples,
                shuffled_batches(len(examples), settings.training.batch, settings.training.steps, generator),
                step_sizes(settings, server_round),
                generator,
                gradient_clip=settings.training.gradient_clip,
                on_step=progress.advance,
            )
        except LossNotFinite as error:
            raise RunStopped(f"round {server_round}: {error}") from None
        seconds = time.perf_counter() - began_round
        weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        results.take_in(server_round, weights)
        line: dict[str, Any] = {
            "round": server_round,
            "phase": "round",
            "loss": _evaluated(results, held_out),
            "clients": {},
            "failures": [],
            "train": {"loss": loss},
            "server_seconds": seconds,
        }
        directory.write_down(line)
        results.round_done(server_round, directory, progress)
        state = {**results.state(), **moments_of(optimiser, model)}
        checkpoints.write(directory.checkpoints, server_round, weights, state, workload=settings.workload)
        progress.round_done(server_round, settings.rounds, line["loss"])
    results.measure(progress)
    directory.close()
    directory.write_summary(results.summary(directory.metrics(), directory.wall_seconds()))
    progress.note(f"run directory: {directory.path}")
    progress.note(f"look at it with: fmtda report {directory.path}")


def _evaluated(results: Results, held_out: Mapping[str, Tensor]) -> dict[str, float]:
    """The average's loss by domain, measured as the clients of a federation measure it."""
    settings, model = results.settings, results.model
    model.load_state_dict(results.average)
    counts: dict[str, dict[str, Any]] = {}
    for name, examples in held_out.items():
        counts[name] = {"num-examples": len(examples)}
        if len(examples):
            generator = generator_for(settings.seed, name, "held-out loss")
            counts[name]["loss"] = held_out_loss(model, examples, generator)
    return loss_by_domain(counts)
