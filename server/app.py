"""The Flower ServerApp: from a run config to a finished run directory."""

import time
from pathlib import Path

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from adaptation.networks import Network, build
from protocol.records import from_record, to_record
from protocol.runtime import choose_device, set_threads
from protocol.seeds import seed_for
from protocol.settings import Settings, SettingsError
from server import checkpoints
from server.metrics import metric_of, summarise
from server.pretraining import pretrained
from server.progress import Lines, Progress
from server.roster import Roster
from server.rounds import Federation
from server.run_directory import RunDirectory
from server.source import Source
from server.startup import check_source, effective_settings
from strategies.registry import STRATEGIES

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Flower's own way in: ``flwr run``."""
    settings = effective_settings(context.run_config)
    check_source(settings)
    if not settings.output:
        settings = settings.changed(output=str(new_output(settings)))
    run(grid, settings, Lines(metric_of(settings.data)))


def new_output(settings: Settings) -> Path:
    """A fresh folder for a run that names none: ``runs/DATE-STRATEGY-DATA`` below the working directory."""
    return Path.cwd() / "runs" / time.strftime(f"%Y%m%d-%H%M%S-{settings.strategy}-{settings.data}")


def run(grid: Grid, settings: Settings, progress: Progress) -> RunDirectory:
    """Run a federation from the first message to summary.json, or continue one from its last whole round.

    Raises
    ------
    SettingsError, DataError
        If the federation or the data don't fit the settings.
    NoClientAnswered, CheckpointError
        If the run can't go on; what was reached stays in the run directory.
    """
    began = time.perf_counter()
    set_threads(settings.server_threads)
    directory = RunDirectory.open(settings) if settings.resume else RunDirectory.create(settings)
    roster = Roster()
    federation = Federation(grid, roster, settings, directory, progress)
    roster.wait(grid, settings)
    if problems := roster.call(federation.exchange, grid, settings, settings.timeout):
        raise SettingsError("\n".join(problems))

    device = choose_device(settings.device)
    source = Source.load(settings, device)
    network = new_network(settings, device)
    checkpoint = checkpoints.latest(directory.checkpoints) if settings.resume else None
    if checkpoint is None:
        directory.cut_back(-1)
        model = _before_the_first_round(federation, source, network)
        first_round = 1
    else:
        directory.cut_back(checkpoint.round)
        model, first_round = checkpoint.model, checkpoint.round + 1
        progress.note(f"continuing after round {checkpoint.round}")

    strategy = STRATEGIES[settings.strategy](settings, network, source)
    arrays = to_record(model)
    if first_round == 1 and hasattr(strategy, "initial"):
        arrays = strategy.initial(arrays)
    arrays = federation.train(strategy, arrays, first_round)
    if settings.personalise:
        federation.personalise(arrays)
    directory.write_summary(summarise(settings, directory.metrics(), time.perf_counter() - began))
    progress.note(f"run directory: {directory.path}")
    return directory


def new_network(settings: Settings, device: torch.device) -> Network:
    """A freshly initialised network of the run's architecture."""
    seed = seed_for(settings.seed, "network")
    return build(settings.network, len(settings.class_names), settings.shape, seed).to(device)


def _before_the_first_round(federation: Federation, source: Source, network: Network) -> dict[str, torch.Tensor]:
    """Algorithm 1, line 1: pre-train G and F_g, and measure where the run starts from (round 0)."""
    settings, progress = federation.settings, federation.progress
    began = time.perf_counter()
    plain_settings = settings.changed(standardise=False, randomise=False, scenery=False)
    plain_source_only = None
    if plain_settings != settings:
        plain = new_network(settings, next(network.parameters()).device)
        pretrained(plain, source.plain(), settings, settings.plain_steps, "plain reference", progress)
        plain_source_only = federation.evaluate_global(
            to_record(plain.state_dict()), plain_settings, "clients evaluate the plain reference"
        )
    report = pretrained(network, source, settings, settings.pretrain_steps, "pre-training", progress)
    pretraining_seconds = time.perf_counter() - began
    arrays = to_record(network.state_dict())
    source_only = federation.evaluate_global(arrays, settings, "clients evaluate the pre-trained model")
    federation.write_down(
        {
            "round": 0,
            "phase": "round",
            "pretraining": report,
            "pretraining_seconds": pretraining_seconds,
            "source_only": source_only,
            "plain_source_only": plain_source_only or source_only,
            "accuracy": {domain: {"global": value} for domain, value in source_only.items()},
            "confusion": {},
            "clients": {},
            "failures": [],
        }
    )
    checkpoints.write(federation.run.checkpoints, 0, from_record(arrays))
    progress.round_done(0, settings.rounds, source_only)
    return from_record(arrays)
