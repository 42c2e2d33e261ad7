"""Draws random numbers for every example of a batch, from a generator on any device."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """Draws once per example, shaped to broadcast over pictures (N, channels, H, W).

    Attributes
    ----------
    generator : torch.Generator
        Source of every draw.
    count : int
        N.
    device : torch.device
        Of the examples; draws are moved there from the generator's.
    """

    generator: torch.Generator
    count: int
    device: torch.device

    def uniform(self, low: float, high: float, channels: int = 1) -> Tensor:
        """Draw uniformly between the bounds, (N, channels, 1, 1)."""
        shape = (self.count, channels, 1, 1)
        values = torch.rand(shape, generator=self.generator, device=self.generator.device)
        return low + (high - low) * values.to(self.device)

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers, (N, *shape)."""
        values = torch.randn((self.count, *shape), generator=self.generator, device=self.generator.device)
        return values.to(self.device)

    def chance(self, probability: float) -> Tensor:
        """Draw booleans that are true with this probability, (N, 1, 1, 1)."""
        return self.uniform(0, 1) < probability

    def indices(self, below: int) -> Tensor:
        """Draw integers from 0 to `below` - 1, (N,)."""
        values = torch.randint(below, (self.count,), generator=self.generator, device=self.generator.device)
        return values.to(self.device)
