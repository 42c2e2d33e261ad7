"""Mini-batches: which examples each step of a training takes."""

from collections.abc import Iterator

import torch
from torch import Tensor


def shuffled_batches(examples: int, batch_size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Index batches out of one random order after another; a rest smaller than a batch is left out each time.

    Parameters
    ----------
    examples : int
        Size of the data set.
    batch_size : int
        Indices a batch; with fewer examples than that, every batch holds all of them.
    steps : int
        How many batches.
    generator : torch.Generator
        Source of the orders.

    Yields
    ------
    Tensor, (min(batch_size, examples),), int64, on the CPU
    """
    batch_size = min(batch_size, examples)
    order: list[Tensor] = []
    for _ in range(steps):
        if not order:
            permutation = torch.randperm(examples, generator=generator, device=generator.device).cpu()
            order = [batch for batch in permutation.split(batch_size) if len(batch) == batch_size]
        yield order.pop()
