"""Says what is to be known of each data set: where its files may lie, and how they are looked at and read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fmtda.domains.examples import DataError, Examples
from fmtda.domains.family import Part


@dataclass(frozen=True)
class FileLayout:
    """Says how a data set is distributed.

    Attributes
    ----------
    folders : tuple of str
        Where its files may lie below the data folder: as torchvision lays them out, and directly.
    names : dict
        For each part the files it needs, each with its alternatives in order of preference.
    check, read : callable
        Take the files of one part, in the order of `names`; `read` also which part it is, as an archive holds
        both.
    """

    folders: tuple[str, ...]
    names: dict[Part, tuple[tuple[str, ...], ...]]
    check: Callable[[Sequence[Path]], None]
    read: Callable[[Sequence[Path], Part], Examples]


def digits(pictures: torch.Tensor, labels: np.ndarray, file: Path) -> Examples:
    """Join pictures, uint8 (N, 3, 32, 32), and labels (N,) as `read` returns them; refuse labels that are no digits."""
    classes = torch.from_numpy(np.asarray(labels).astype(np.int64))
    if len(classes) == 0 or classes.min() < 0 or classes.max() > 9:
        raise DataError(f"{file} holds labels other than the ten digits, or none at all; get it anew")
    return Examples(pictures.contiguous(), classes)
