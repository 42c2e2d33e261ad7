"""What every domain hands out: pictures with their labels, and the error for data a user can mend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


class DataError(ValueError):
    """A data problem that the user can mend.

    The message is one line: what was given, what is allowed, what to do.
    """


@dataclass(frozen=True)
class Examples:
    """Pictures and their labels, in the same order.

    Attributes
    ----------
    inputs : torch.Tensor
        First axis N, one entry an example; uint8 (N, 3, 32, 32), values 0 to 255, for the digit families.
    labels : torch.Tensor
        int64 (N,), from 0 to the number of classes less one, -1 where the label is unknown.

    Raises
    ------
    ValueError
        If there are not as many labels as inputs.
    """

    inputs: torch.Tensor
    labels: torch.Tensor

    def __post_init__(self) -> None:
        if self.labels.shape != self.inputs.shape[:1]:
            raise ValueError(
                f"labels of shape {tuple(self.labels.shape)} must be one for each of {self.inputs.shape[0]} inputs"
            )

    def __len__(self) -> int:
        return self.labels.shape[0]

    @property
    def labelled(self) -> bool:
        """Whether at least one label is known."""
        return bool((self.labels >= 0).any())

    def select(self, indices: torch.Tensor | np.ndarray | Sequence[int]) -> Examples:
        """The examples at `indices` (integers, any order), copied."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return Examples(self.inputs[chosen], self.labels[chosen])

    def limited(self, n: int, seed: int) -> Examples:
        """At most `n` examples, drawn at random by `seed` and kept in their order; `n` = 0 means all."""
        if n < 0:
            raise ValueError(f"n={n} must be 0 (all examples) or positive")
        if n == 0 or n >= len(self):
            return self
        drawn = np.random.default_rng(seed).choice(len(self), size=n, replace=False)
        return self.select(np.sort(drawn))
