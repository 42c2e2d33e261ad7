"""What stays with a client between messages: files in its own folder that never travel.

Flower's ``context.state`` is not used: it does not survive into a resumed run, and it would travel with every
simulated message.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fmtda.adaptation.mixture import Mixture

UPLOADED = "uploaded.safetensors"
"""F_l and W_T as the client last sent them."""

LOCALISED = "localised.safetensors"
"""What the client last predicted with beside the server's model: F_l, and G's BatchNorm statistics, scales, shifts."""

PERSONAL = "personal.safetensors"
"""The client's own copy of G and its head."""


def write(folder: Path, file: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Replace one of the files above; a kill leaves the old or the new one, never half of either."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{file}.{os.getpid()}"
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, aside)
    aside.rename(folder / file)


def write_uploaded(folder: Path, classifier: torch.nn.Module, mixture: Mixture) -> None:
    """Keep F_l and W_T as they are sent."""
    mixture_tensors = {name: torch.from_numpy(array) for name, array in mixture.arrays().items()}
    write(folder, UPLOADED, prefixed("classifier", classifier.state_dict()) | prefixed("mixture", mixture_tensors))


def read(folder: Path, file: str) -> dict[str, torch.Tensor] | None:
    """What was last written there, or None: a client may have lost its folder or not have trained yet."""
    try:
        return load_file(folder / file)
    except (FileNotFoundError, SafetensorError):
        return None


def prefixed(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under ``prefix.NAME``, so that several groups fit into one file."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def group(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors that `prefixed` put under a prefix."""
    return {
        name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")
    }
