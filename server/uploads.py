"""What the clients last uploaded beside a whole model, kept in the run directory: DualAdapt's F_l and W_T, and W_S.

The server alone can then predict for a domain whose client keeps the rest to itself, tell which domain pictures look
like, and a new domain can be adapted to after the run.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from flwr.app import ArrayRecord, Message
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fmtda.adaptation.mixture import Mixture
from fmtda.protocol.records import from_record
from fmtda.server.writing import writing

FILE = "uploaded.safetensors"
"""In a folder of the client's name, laid out as on the client: ``classifier.*``, ``mixture.*``."""

SOURCE_MIXTURE = "source_mixture.safetensors"
"""W_S over the features of the final G, as a client of one more round would get it."""


def keep(folder: Path, replies: Mapping[str, Message]) -> None:
    """Write the arrays of every reply, by client name; what others sent in earlier rounds stays.

    Raises
    ------
    WriteError
        If the folder can't be written to or the disk is full.
    """
    for name, reply in replies.items():
        tensors = {
            f"{record}.{array}": tensor
            for record, arrays in reply.content.items()
            if isinstance(arrays, ArrayRecord)
            for array, tensor in from_record(arrays).items()
        }
        _write(folder / name / FILE, tensors)


def keep_source_mixture(folder: Path, mixture: Mixture) -> None:
    """Write W_S.

    Raises
    ------
    WriteError
        As `keep`.
    """
    _write(folder / SOURCE_MIXTURE, {name: torch.from_numpy(np.array(a)) for name, a in mixture.arrays().items()})


def read(file: Path) -> dict[str, torch.Tensor] | None:
    """What is in one of these files, or None where there is none."""
    try:
        return load_file(file)
    except (FileNotFoundError, SafetensorError):
        return None


def senders(folder: Path) -> list[str]:
    """The names of the clients whose uploads are kept, sorted."""
    return sorted(file.parent.relative_to(folder).as_posix() for file in folder.glob(f"*/*/{FILE}"))


def _write(file: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    with writing("the uploads", file):
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, aside)
        aside.rename(file)
