"""Sees without target labels when adaptation collapses: one class for everything, or the task forgotten.

MCD from MNIST to SVHN ends at chance: agreement is easiest where every example gets the same prediction.

Our choice: both signs of a collapse, and where they begin to count.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fmtda.adaptation.accuracy import accuracy
from fmtda.adaptation.batches import forward_slices
from fmtda.adaptation.inputs import Inputs
from fmtda.adaptation.network import Network

LARGEST_LOSS = 0.1
"""How much accuracy on the source hold-out, in [0, 1], may be lost against the start."""

LEAST_SPREAD = 0.5
"""The share of the start's entropy of the mean prediction that has to be left on every target."""


@dataclass(frozen=True)
class Health:
    """Holds the figures that a collapse shows in.

    Attributes
    ----------
    source_accuracy : float
        On labelled examples that are not trained on, in [0, 1].
    spreads : tuple of float
        The entropy of the mean prediction on each target, in nats: 0 where everything gets one class for certain,
        log C where all classes get predicted equally often.
    """

    source_accuracy: float
    spreads: tuple[float, ...]


@torch.no_grad()
def health(network: Network, source: tuple[Tensor, Tensor], targets: Sequence[Inputs | Tensor]) -> Health:
    """Measure a network, in evaluation mode, and leave it in the mode that it came in.

    Parameters
    ----------
    network : Network
    source : pair of Tensor
        Held-out inputs (B, ...) and labels, -1 where unknown.
    targets : sequence of Inputs or Tensor, (n, ...) each
        Unlabelled inputs of each target.
    """
    training = network.training
    network.eval()
    inputs, labels = source
    source_accuracy = accuracy(network, inputs, labels)
    spreads = tuple(_spread(network, target) for target in targets)
    network.train(training)
    return Health(source_accuracy, spreads)


def collapsed(now: Health, start: Health) -> str | None:
    """Say why a network counts as collapsed, against how it started; None where it doesn't.

    It does if it lost more than `LARGEST_LOSS` of its accuracy on the source hold-out, if on one of the targets less
    than `LEAST_SPREAD` of the mean prediction's entropy is left, or if either is no number any more.
    """
    if not now.source_accuracy >= start.source_accuracy - LARGEST_LOSS:
        return f"accuracy on the source hold-out fell from {start.source_accuracy:.1%} to {now.source_accuracy:.1%}"
    for target, (before, after) in enumerate(zip(start.spreads, now.spreads, strict=True), start=1):
        if not after >= LEAST_SPREAD * before:
            return f"entropy of the mean prediction on target {target} fell from {before:.2f} to {after:.2f} nats"
    return None


def _spread(network: Network, inputs: Inputs | Tensor) -> float:
    total, count = 0.0, 0
    for part in forward_slices(inputs):
        probabilities = network(inputs[part]).softmax(dim=1).movedim(1, -1).flatten(0, -2)
        total, count = total + probabilities.sum(dim=0), count + len(probabilities)
    return torch.special.entr(total / count).sum().item()
