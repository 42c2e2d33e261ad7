"""Writes checkpoints that are whole or not there: safetensors and a JSON manifest, renamed at the end."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from fmtda.domains.reading_rights import Unreadable, matching, rights_to_read
from fmtda.protocol.settings import SettingsError
from fmtda.server.run_directory import writing

KEPT = 2
"""Checkpoints that stay; the older one serves if the disk loses the newer."""


DIGESTS = {"model": "sha256", "state": "state_sha256"}
"""The files of a checkpoint, the second only where there is a state, and under which name the manifest checks them."""


@dataclass(frozen=True)
class Checkpoint:
    """Holds what a run continues from, after a whole round.

    Attributes
    ----------
    round
        The last whole one.
    model
        The global model.
    state
        What else lives from round to round on the server: a strategy's moments, a moving average of the model.
    workload
        Whose model it is.
    """

    round: int
    model: dict[str, torch.Tensor]
    state: dict[str, torch.Tensor] = field(default_factory=dict)
    workload: str = "adaptation"

    def refuse_other(self, workload: str) -> None:
        """Refuse a checkpoint of another workload.

        Raises
        ------
        SettingsError
        """
        if self.workload != workload:
            raise SettingsError(f"workload={workload}: the checkpoint of round {self.round} is of {self.workload}")


def write(
    folder: Path,
    server_round: int,
    model: Mapping[str, torch.Tensor],
    state: Mapping[str, torch.Tensor] | None = None,
    workload: str = "adaptation",
) -> None:
    """Save what a run continues from, see `Checkpoint`, then remove checkpoints that are no longer kept.

    Raises
    ------
    WriteError
        If the folder can't be written to or the disk is full; earlier checkpoints stay as they are.
    """
    final = folder / f"round-{server_round:06d}"
    aside = folder / f".writing-{server_round:06d}"
    with writing(f"the checkpoint of round {server_round}", folder):
        for left in (*folder.glob(".writing-*"), *folder.glob(".removing-*")):  # by a killed run
            shutil.rmtree(left, ignore_errors=True)
        aside.mkdir(parents=True)
        manifest: dict[str, Any] = {"round": server_round, "workload": workload, "order": {}}
        for part, tensors in {"model": model, **({"state": state} if state else {})}.items():
            data = save({name: tensor.contiguous() for name, tensor in tensors.items()})
            _write_through(aside / f"{part}.safetensors", data)
            manifest["order"][part] = list(tensors)  # safetensors sorts; Flower's FedAvgM goes by the order of arrays
            manifest[DIGESTS[part]] = hashlib.sha256(data).hexdigest()
        _write_through(aside / "manifest.json", json.dumps(manifest).encode())
        shutil.rmtree(final, ignore_errors=True)
        aside.rename(final)
        for old in _folders(folder)[:-KEPT]:
            # Renamed first, so that a kill during the removal can't leave half a checkpoint under its name.
            shutil.rmtree(old.rename(folder / f".removing-{old.name}"), ignore_errors=True)


def latest(folder: Path) -> Checkpoint | None:
    """Find the newest checkpoint that is whole, or None.

    Raises
    ------
    Unreadable
        If there is one that this account may not read.
    """
    for candidate in reversed(_folders(folder)):
        try:
            with rights_to_read(candidate):
                manifest = json.loads((candidate / "manifest.json").read_bytes())
                server_round, workload = manifest["round"], manifest.get("workload", "adaptation")
                digests = {part: manifest[key] for part, key in DIGESTS.items() if part == "model" or key in manifest}
                contents = {part: (candidate / f"{part}.safetensors").read_bytes() for part in digests}
        except Unreadable:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        if all(hashlib.sha256(contents[part]).hexdigest() == digest for part, digest in digests.items()):
            order = manifest.get("order", {})
            tensors = {part: _ordered(load(data), order.get(part)) for part, data in contents.items()}
            return Checkpoint(server_round, **tensors, workload=workload)
    return None


def _ordered(tensors: dict[str, torch.Tensor], names: list[str] | None) -> dict[str, torch.Tensor]:
    return {name: tensors[name] for name in names or tensors}


def _folders(folder: Path) -> list[Path]:
    return matching(folder, "round-*")


def _write_through(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
