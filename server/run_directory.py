"""The run directory: settings, one line of metrics a round, the summary, checkpoints; what resuming needs.

::

    flower.log       what Flower itself says, tracebacks of failing clients included (simulation)
    config.toml      the full effective settings, and the versions they ran with
    metrics.jsonl    one line a round, round 0 being before the first
    pretrained.safetensors    G and F_g before the first round
    illustration.safetensors  features and pictures of clients that agreed to show them (server/illustration.py)
    samples/         what a generative model drew
    summary.json     written at the end
    checkpoints/     the global model after the last rounds, and what else the server needs to go on
    tensorboard/     the same metrics as curves
    uploads/         what DualAdapt's clients last uploaded, and the last W_S
    trackers.json    the run's ids in MLflow and Weights & Biases, where these are used
    clients/         what stays with each simulated client
"""

import json
import os
import time
import tomllib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli_w
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fmtda.protocol.settings import RunSettings, SettingsError
from fmtda.server.writing import WriteError, writing

FLOWER_LOG = "flower.log"
"""Flower's own log of a simulation; it may be there before the run is."""

PRETRAINED = "pretrained.safetensors"

BEFORE_THE_RUN = {FLOWER_LOG, ".config.toml.writing"}
"""What a folder may hold and still be new: the log, and what a kill in the very first moment left."""

MAY_CHANGE = {"output", "data-dir", "base-dir", "resume", "rounds", "evaluate-every", "trackers"}
MAY_CHANGE |= {"timeout", "join-timeout", "in-flight"}
"""Keys that a resumed run may be given anew; `rounds` may only grow."""


class RunDirectory:
    """The files of one run below `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.tensorboard = path / "tensorboard"
        self.samples = path / "samples"
        self.uploads = path / "uploads"
        self._metrics = path / "metrics.jsonl"
        self._since = time.perf_counter()

    @classmethod
    def create(cls, settings: RunSettings) -> "RunDirectory":
        """Begin a new run in ``settings.output``.

        Raises
        ------
        SettingsError
            If the folder holds something already or can't be written to.
        """
        path = Path(settings.output)
        refuse_unusable_output(path)
        make_folder(path)
        run = cls(path)
        try:
            run._write("config.toml", tomli_w.dumps({"settings": settings.run_config(), "versions": versions()}))
        except WriteError as error:
            raise SettingsError(f"output={path}: {error}") from None
        return run

    @classmethod
    def open(cls, settings: RunSettings) -> "RunDirectory":
        """Open the run in ``settings.output`` to continue it.

        Raises
        ------
        SettingsError
            If there is no run, or it was made with other settings; the message names them.
        """
        refuse_other_settings(settings)
        run = cls(Path(settings.output))
        run._write("config.toml", tomli_w.dumps({"settings": settings.run_config(), "versions": versions()}))
        return run

    def keep_pretrained(self, state: Mapping[str, torch.Tensor]) -> None:
        """Write the network as it was before the first round; raises `WriteError` where the system refuses."""
        aside = self.path / f".{PRETRAINED}.writing"
        with writing("the pre-trained network", self.path):
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, aside)
            aside.rename(self.path / PRETRAINED)

    def pretrained(self) -> dict[str, torch.Tensor] | None:
        """The network as it was before the first round; None in a run of an earlier version, which kept none."""
        try:
            return load_file(self.path / PRETRAINED)
        except (OSError, SafetensorError):
            return None

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl, with the seconds since the one before or since the run was opened."""
        now = time.perf_counter()
        with self._metrics.open("a") as file:
            file.write(json.dumps({**line, "wall_seconds": now - self._since}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._since = now

    def wall_seconds(self) -> float:
        """How long the run has taken, in all sittings; what a kill has undone does not count."""
        return sum(line.get("wall_seconds", 0.0) for line in self.metrics()) + time.perf_counter() - self._since

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl so far."""
        return read_metrics(self.path)

    def cut_back(self, server_round: int) -> None:
        """Keep only the metrics of whole rounds up to `server_round`, so that a resumed run equals an unbroken one.

        The summary of a run that had ended goes too: until the next end it would tell of another model.
        """
        kept = [line for line in self.metrics() if line["round"] <= server_round and line["phase"] == "round"]
        self._write("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))
        (self.path / "summary.json").unlink(missing_ok=True)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write summary.json."""
        self._write("summary.json", json.dumps(summary, indent=2) + "\n")

    def _write(self, name: str, text: str) -> None:
        aside = self.path / f".{name}.writing"
        with writing(name, self.path):
            aside.write_text(text)
            aside.rename(self.path / name)


def make_folder(path: Path) -> None:
    """Create the run directory.

    Raises
    ------
    SettingsError
        If the system refuses.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"output={path}: the folder can't be made ({error.strerror}); name another") from None


def refuse_unusable_output(path: Path) -> None:
    """Refuse a folder for a new run that holds something or can't be written to; creates nothing.

    Raises
    ------
    SettingsError
        Saying which, and what to do.
    """
    if path.exists() and not path.is_dir():
        raise SettingsError(f"output={path}: this is a file; name a folder")
    if path.is_dir() and any(entry.name not in BEFORE_THE_RUN for entry in path.iterdir()):
        hint = f"continue that run with --resume {path}" if (path / "config.toml").exists() else "name a new folder"
        raise SettingsError(f"output={path}: the folder is not empty; {hint}")
    parent = next(folder for folder in (path, *path.parents) if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise SettingsError(f"output={path}: {parent} can't be written to; name a folder that can")


def refuse_other_settings(settings: RunSettings) -> None:
    """Refuse to continue the run in ``settings.output`` with settings that would change its results.

    Raises
    ------
    SettingsError
        Naming the key, both values, and what to do.
    """
    stored = stored_run_config(Path(settings.output))
    for key, value in settings.run_config().items():
        if key not in MAY_CHANGE and stored.get(key) != value:
            raise SettingsError(
                f"{key}={value}: the run in {settings.output} has {key}={stored.get(key)}; "
                "resume it with its own settings, or start a new run in another folder"
            )
    if settings.rounds != stored["rounds"] and not settings.rounds_may_grow:
        raise SettingsError(
            f"rounds={settings.rounds}: the run in {settings.output} has {stored['rounds']}, and what a round does "
            "depends on it; leave rounds out, or start a new run in another folder"
        )
    if settings.rounds < stored["rounds"]:
        raise SettingsError(
            f"rounds={settings.rounds}: the run in {settings.output} has {stored['rounds']}; only more can follow"
        )


def stored_run_config(path: Path) -> dict[str, Any]:
    """The settings of the run in a folder, as a flat run config.

    Raises
    ------
    SettingsError
        If the folder holds no run.
    """
    try:
        return tomllib.loads((path / "config.toml").read_text())["settings"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        raise SettingsError(f"{path}: no run here (no readable config.toml)") from None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; a last line that a kill left unfinished is left out."""
    lines = []
    try:
        for text in (path / "metrics.jsonl").read_text().splitlines():
            lines.append(json.loads(text))
    except (FileNotFoundError, json.JSONDecodeError):
        return lines
    return lines


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {name: version(name) for name in ("fmtda", "flwr", "torch", "torchvision", "scikit-learn", "numpy")}
