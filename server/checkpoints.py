"""Checkpoints that are whole or not there: safetensors and a JSON manifest, written aside, renamed at the end."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load, save

KEPT = 2
"""Checkpoints that stay; the older one serves if the disk loses the newer."""


class CheckpointError(OSError):
    """A checkpoint that can't be written; the message names the folder and the cause."""


@dataclass(frozen=True)
class Checkpoint:
    """What a run continues from: the global model after a whole round."""

    round: int
    model: dict[str, torch.Tensor]


def write(folder: Path, server_round: int, model: Mapping[str, torch.Tensor]) -> None:
    """Save the model after a round, then remove checkpoints that are no longer kept.

    Raises
    ------
    CheckpointError
        If the folder can't be written to or the disk is full; earlier checkpoints stay as they are.
    """
    final = folder / f"round-{server_round:06d}"
    aside = folder / f".writing-{server_round:06d}"
    try:
        for left in (*folder.glob(".writing-*"), *folder.glob(".removing-*")):  # by a killed run
            shutil.rmtree(left, ignore_errors=True)
        aside.mkdir(parents=True)
        data = save({name: tensor.contiguous() for name, tensor in model.items()})
        _write_through(aside / "model.safetensors", data)
        manifest = {"round": server_round, "sha256": hashlib.sha256(data).hexdigest()}
        _write_through(aside / "manifest.json", json.dumps(manifest).encode())
        shutil.rmtree(final, ignore_errors=True)
        aside.rename(final)
        for old in _folders(folder)[:-KEPT]:
            # Renamed first, so that a kill during the removal can't leave half a checkpoint under its name.
            shutil.rmtree(old.rename(folder / f".removing-{old.name}"), ignore_errors=True)
    except OSError as error:
        raise CheckpointError(f"can't write the checkpoint of round {server_round} to {folder}: {error}") from error


def latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None."""
    for candidate in reversed(_folders(folder)):
        try:
            manifest = json.loads((candidate / "manifest.json").read_bytes())
            server_round, digest = manifest["round"], manifest["sha256"]
            data = (candidate / "model.safetensors").read_bytes()
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if hashlib.sha256(data).hexdigest() == digest:
            return Checkpoint(server_round, load(data))
    return None


def _folders(folder: Path) -> list[Path]:
    return sorted(folder.glob("round-*"))


def _write_through(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
