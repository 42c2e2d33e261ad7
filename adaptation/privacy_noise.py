"""Draws the numbers that noise and secret samples are made of: from the operating system, or seeded.

Whoever can compute the noise can take it away again, and then nothing is private. So on a real client there is no
seed: every number comes from the operating system's generator. In a simulation, where all data lies on the machine of
whoever runs it, a seeded generator makes two runs equal. Both give whole numbers of 53 bits, and all that is made of
them is the same for both.
"""

import secrets
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

BITS = 53
"""As many as a float64 has."""

Uniforms = Callable[[int], Tensor]
"""From a count to as many independent numbers in (0, 1): float64, on the CPU."""


def system_uniforms(count: int) -> Tensor:
    """Draw numbers that nobody can compute, the owner of the seed of a run least of all."""
    drawn = np.frombuffer(secrets.token_bytes(8 * count), dtype=np.uint64) >> np.uint64(64 - BITS)
    return _between_zero_and_one(torch.from_numpy(drawn.astype(np.int64)))


def seeded_uniforms(generator: torch.Generator) -> Uniforms:
    """Draw numbers that an equal generator gives again; they keep nothing secret from who knows its seed."""
    return lambda count: _between_zero_and_one(torch.randint(2**BITS, (count,), generator=generator))


def normal(shape: torch.Size | tuple[int, ...], uniforms: Uniforms) -> Tensor:
    """Draw independent standard normal numbers: float64, on the CPU."""
    return torch.special.ndtri(uniforms(torch.Size(shape).numel())).reshape(shape)


def _between_zero_and_one(whole: Tensor) -> Tensor:
    """Whole numbers below 2^53 as the middles of as many equal parts of the unit interval: never 0."""
    return ((whole.double() + 0.5) / 2**BITS).clamp(max=1 - 2.0**-BITS)
