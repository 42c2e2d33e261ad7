"""Trains without labels where some classes are far rarer than others, as in the pixels of scenes: class by class.

One threshold for all classes learns sky and road alone, and asking for all classes equally often invents people. So, as
in class-balanced self-training (Zou et al., ECCV 2018), the surest predictions of each class are its labels.

Our choice: that the teacher stays as it was, that a class counts by the root of its rarity, and all numbers.
"""

import copy

import torch
from torch.nn import functional

from fmtda.adaptation.batches import forward_slices
from fmtda.adaptation.inputs import Inputs
from fmtda.adaptation.network import Network
from fmtda.adaptation.self_training import SelfTraining, head_and_scales, logits

SURE = 0.5
"""The part of the places predicted as a class that is learned, the surest ones."""

RARITY = 0.5
"""The power of a class's share by which its places count less; 0 counts all places alike, 1 all classes."""

SMALLEST_SHARE = 1e-4
"""The smallest share of a class among the predictions; rarer ones count no more than one of this share."""

BINS = 1000
"""How many bins the histogram over confidences in [0, 1] has, which thresholds are read from."""


def adapt_head_and_scales_by_class(
    network: Network, inputs: Inputs, *, steps: int, batch_size: int, learning_rate: float, generator: torch.Generator
) -> dict[str, float]:
    """Do as `self_training.adapt_head_and_scales` with labels chosen class by class, in place.

    The labels are those of the network as it came: the mean of its predictions on an input and on a view of it. They
    are learned on another view, and BatchNorm keeps its running statistics.

    Parameters
    ----------
    network : Network
    inputs : Inputs
        The client's. A dense network's predictions count place by place of its feature maps.
    steps, batch_size : int
        Mini-batches, and inputs in each.
    learning_rate : float
        Adam's at the start, falling along a cosine to zero.
    generator : torch.Generator
        Source of the mini-batches and of the views.

    Returns
    -------
    dict
        `loss`, and `confident` (share of places that are labels, 0 to 1), each the mean over the steps; empty for no
        steps.
    """
    training = _ClassBalanced(network, inputs, generator)
    return training.run(head_and_scales(network), steps, batch_size, learning_rate)


def balanced_thresholds(counts: torch.Tensor, sure: float = SURE) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose from which confidence on a prediction of a class is a label, and how much it counts.

    Parameters
    ----------
    counts : Tensor, (C, bins), integer
        How many places are predicted as each class, by confidence in equal bins over [0, 1].
    sure : float
        Part of a class's places that become labels, in (0, 1]; more where the bin that decides holds more.

    Returns
    -------
    thresholds : Tensor, (C,)
        Lower edges of bins; 0 for a class that is never predicted.
    weights : Tensor, (C,)
        The class's share of all places, to the power of -`RARITY`.
    """
    classes, bins = counts.shape
    surest_first = counts.flip(1).cumsum(1)
    totals = counts.sum(1)
    # The first bin from above at which enough places are reached.
    enough = surest_first.double() >= sure * totals.double()[:, None]
    thresholds = (bins - 1 - enough.int().argmax(dim=1)) / bins
    shares = totals / totals.sum().clamp(min=1)
    return thresholds * (totals > 0), shares.clamp(min=SMALLEST_SHARE) ** -RARITY


class _ClassBalanced(SelfTraining):
    def __init__(self, network: Network, inputs: Inputs, generator: torch.Generator) -> None:
        super().__init__(network, inputs, generator)
        self.teacher = copy.deepcopy(network).requires_grad_(False).eval()
        self.thresholds, self.weights = balanced_thresholds(self._counts())

    @torch.no_grad()
    def _counts(self) -> torch.Tensor:
        """Histograms of the teacher's confidences on all inputs, a row a class: (C, BINS)."""
        counts = []
        for part in forward_slices(self.inputs):
            probabilities = logits(self.teacher, self.inputs[part]).softmax(dim=1)
            confidences, classes = probabilities.max(dim=1)
            bins = (confidences * BINS).long().clamp(max=BINS - 1)
            counts.append(torch.bincount(classes * BINS + bins, minlength=probabilities.shape[1] * BINS))
        return torch.stack(counts).sum(dim=0).view(-1, BINS)

    def loss(self, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.network.eval()
        with torch.no_grad():
            of_input = logits(self.teacher, self.inputs[chosen]).softmax(dim=1)
            of_view = logits(self.teacher, self.inputs.view(chosen, self.generator)).softmax(dim=1)
            confidences, labels = ((of_input + of_view) / 2).max(dim=1)
            sure = (confidences >= self.thresholds[labels]).float()
            weights = sure * self.weights[labels]
        of_another = logits(self.network, self.inputs.view(chosen, self.generator))
        cross_entropies = functional.cross_entropy(of_another, labels, reduction="none")
        return (weights * cross_entropies).sum() / weights.sum().clamp(min=SMALLEST_SHARE), sure.mean()
