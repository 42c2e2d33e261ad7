"""Gives a domain's examples as network inputs, prepared when they are asked for, so that none is in memory whole.

Our choice: up to which size inputs are prepared once and kept.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from fmtda.adaptation.augment import Augmentation

SMALL = 128 * 2**20
"""How many bytes of prepared inputs are prepared once and kept, at most."""


class Stored(Protocol):
    """This is what inputs are stored in: a tensor, or anything with its shape that gives a tensor for an index."""

    @property
    def shape(self) -> Sequence[int]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, chosen: Tensor | slice) -> Tensor: ...


class Inputs:
    """Gives examples as network inputs.

    Parameters
    ----------
    stored : Tensor or alike, (N, ...)
        As `domains` hands them out.
    augmentation : Augmentation
        Of their kind.
    standardise : bool
        See `Augmentation.prepare`.
    device : torch.device
        Where the network is.
    """

    def __init__(self, stored: Stored, augmentation: Augmentation, standardise: bool, device: torch.device) -> None:
        self.stored = stored
        self.augmentation = augmentation
        self.standardise = standardise
        self.device = device
        self.example_shape = tuple(stored.shape[1:])
        size = 4 * len(stored) * torch.Size(self.example_shape).numel()
        self._prepared = self._prepare(slice(None)) if 0 < size <= SMALL else None

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, chosen: Tensor | slice) -> Tensor:
        """Prepared inputs, float32, at these places: indices (int64 on the CPU) or a slice."""
        if self._prepared is not None:
            return self._prepared[chosen.to(self.device) if isinstance(chosen, Tensor) else chosen]
        return self._prepare(chosen)

    def view(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """Return a changed version of these inputs that keeps their labels; see `Augmentation.view`."""
        changed = self.augmentation.view(self.stored[chosen].to(self.device), generator)
        return self.augmentation.prepare(changed, self.standardise)

    def _prepare(self, chosen: Tensor | slice) -> Tensor:
        return self.augmentation.prepare(self.stored[chosen].to(self.device), self.standardise)
