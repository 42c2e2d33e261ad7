"""Defines what every domain hands out, inputs with their labels, and the error for data that a user can mend.

Our choice: from which size on a selection is left on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fmtda.protocol.printable import printable


class DataError(ValueError):
    """This is raised for a data problem that the user can mend.

    The message is one line: what was given, what is allowed, what to do. What it quotes of files and of their names is
    somebody else's, so no control character in it stays one, an end of a line neither.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message, LONGEST_MESSAGE))


LONGEST_MESSAGE = 4000
"""Characters of an error at most: more than DomainNet's 345 classes take."""


LARGE = 256 * 2**20
"""From how many bytes on a selection is not copied into memory."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Stands for some rows of a memory-mapped tensor, read from disk when they are asked for.

    Attributes
    ----------
    base : torch.Tensor
        First axis one entry a row.
    index : torch.Tensor
        int64 (N,), which of its rows.
    """

    base: torch.Tensor
    index: torch.Tensor

    def __len__(self) -> int:
        return len(self.index)

    @property
    def shape(self) -> torch.Size:
        """Return (N, ...), as a tensor of these rows would have it."""
        return torch.Size((len(self.index), *self.base.shape[1:]))

    def __getitem__(self, chosen: torch.Tensor | slice) -> torch.Tensor:
        """A copy of the rows at these places."""
        return self.base[self.index[chosen]]


@dataclass(frozen=True)
class Examples:
    """Holds inputs and their labels, in the same order.

    Attributes
    ----------
    inputs : torch.Tensor or Rows
        First axis N, one entry an example: uint8 (N, 3, H, W), values 0 to 255, for pictures; float32 (N, D) for
        feature vectors.
    labels : torch.Tensor or Rows
        int64 (N,), from 0 to the number of classes less one, -1 where the label is unknown; for segmentation int8
        (N, H, W), -1 where a pixel counts for no class. (N,) of -1 says unlabelled of either.

    Raises
    ------
    ValueError
        If there are not as many labels as inputs.
    """

    inputs: torch.Tensor | Rows
    labels: torch.Tensor | Rows

    def __post_init__(self) -> None:
        if self.labels.shape[0] != self.inputs.shape[0]:
            raise ValueError(
                f"labels of shape {tuple(self.labels.shape)} must be one for each of {self.inputs.shape[0]} inputs"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labelled(self) -> bool:
        """Say whether at least one label is known."""
        return any(bool((self.labels[start : start + 1000] >= 0).any()) for start in range(0, len(self), 1000))

    def with_known_labels(self) -> Examples:
        """Keep the examples with a known label, of a map one pixel at least; return itself where all have one."""
        parts = (self.labels[start : start + 1000] for start in range(0, len(self), 1000))
        known = [(part >= 0).flatten(1).any(dim=1) if part.ndim > 1 else part >= 0 for part in parts]
        if all(bool(part.all()) for part in known):
            return self
        return self.select(torch.nonzero(torch.cat(known)).flatten())

    def without_labels(self) -> Examples:
        """Return the same inputs, every label unknown."""
        return Examples(self.inputs, torch.full((len(self),), -1))

    def select(self, indices: torch.Tensor | np.ndarray | Sequence[int]) -> Examples:
        """Select the examples at `indices` (integers, any order): copied, or left on disk where they are `LARGE`."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return Examples(_selected(self.inputs, chosen), _selected(self.labels, chosen))

    def limited(self, n: int, seed: int) -> Examples:
        """Keep at most `n` examples, drawn at random by `seed` and in their order; `n` = 0 means all."""
        if n < 0:
            raise ValueError(f"n={n} must be 0 (all examples) or positive")
        if n == 0 or n >= len(self):
            return self
        drawn = np.random.default_rng(seed).choice(len(self), size=n, replace=False)
        return self.select(np.sort(drawn))


def _selected(rows: torch.Tensor | Rows, chosen: torch.Tensor) -> torch.Tensor | Rows:
    if isinstance(rows, Rows):
        return Rows(rows.base, rows.index[chosen])
    size = len(chosen) * rows.element_size() * rows.shape[1:].numel()
    return Rows(rows, chosen) if size >= LARGE else rows[chosen]
