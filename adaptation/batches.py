"""Chooses which examples each step of a training or each forward pass takes.

Our choice: how much a forward pass takes at most.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from fmtda.adaptation.inputs import Inputs

FORWARD_VALUES = 256 * 3 * 32 * 32
"""The most input values in a forward pass: 256 pictures of 32x32, 28 of 96x96."""

FORWARD_EXAMPLES = 256
"""The most examples in a forward pass."""


def shuffled_batches(examples: int, batch_size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield index batches out of one random order after another; a rest smaller than a batch is left out each time.

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


def forward_slices(inputs: Inputs | Tensor) -> list[slice]:
    """Cut all examples, in order, into slices of nearly equal size that a forward pass has room for.

    A slice has two examples at least, where there are two: one alone has no BatchNorm statistics.
    """
    example = torch.Size(inputs.shape[1:] if isinstance(inputs, Tensor) else inputs.example_shape).numel()
    size = max(2, min(FORWARD_EXAMPLES, FORWARD_VALUES // example))
    count = min(-(-len(inputs) // size), max(1, len(inputs) // 2)) if len(inputs) else 0
    edges = [len(inputs) * i // count for i in range(count + 1)] if count else [0]
    return [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]
