"""Draws random numbers on the device of the data, from a generator on any device."""

import torch
from torch import Tensor


def normal(shape: torch.Size | tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw standard normal float32 of this shape."""
    return torch.randn(shape, generator=generator, device=generator.device).to(device)


def normal_like(values: Tensor, generator: torch.Generator) -> Tensor:
    """Draw standard normal numbers, shaped and typed as `values`."""
    return normal(values.shape, generator, values.device).to(values.dtype)


def integers(below: int, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw uniform int64 (count,), 0 to `below` - 1."""
    return torch.randint(below, (count,), generator=generator, device=generator.device).to(device)
