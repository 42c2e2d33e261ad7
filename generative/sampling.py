"""Draws any number of samples from any model, a batch at a time, with progress.

Our choice: how many examples are drawn at once.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fmtda.generative.model import GenerativeModel, unreported

SAMPLE_BATCH = 256
"""How many examples are drawn at once."""


def draw(
    model: GenerativeModel, count: int, generator: torch.Generator, advance: Callable[[int], None] = unreported
) -> Tensor:
    """Draw `count` examples, (N, ...) on the CPU.

    Parameters
    ----------
    model : GenerativeModel
    count : int
        At least 1.
    generator : torch.Generator
        Equal states give equal examples.
    advance : callable
        Called with the number of steps made since its last call; they add up to `steps_to_draw`.
    """
    model.eval()
    sizes = [min(SAMPLE_BATCH, count - start) for start in range(0, count, SAMPLE_BATCH)]
    return torch.cat([model.sample(size, generator, advance).cpu() for size in sizes])


def steps_to_draw(model: GenerativeModel, count: int) -> int:
    """Count the steps that `draw` makes."""
    return -(-count // SAMPLE_BATCH) * model.sampling_steps
