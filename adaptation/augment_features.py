"""Scales feature vectors, counts of visual words or others, and changes them at random.

Our choice: all values. `MIXED` and `WORD_DROPOUT` were chosen by accuracy on held-out folds of the source, the mean
over the four domains of Office-Caltech10 SURF each as the source.
"""

import torch
from torch import Tensor
from torch.nn import functional

from fmtda.adaptation.augment import Augmentation

# Shapes: N vectors of D features.

LEAST_DEVIATION = 0.05
"""A smaller standard deviation counts as this when a vector is standardised; one of equal values stays zero."""

MIXED = 0.5
"""Chance that a source example is mixed with another of its class and the batch."""

WORD_DROPOUT = 0.6
"""Largest share of a source example's features that is set to zero; the share is drawn for each example."""

VIEW_DROPOUT = 0.3
"""Share of the features that a view sets to zero: the mean share in a randomised source example."""


class FeatureAugmentation(Augmentation):
    """Scales and changes feature vectors: counts as a histogram gives them, or any other real features.

    No step asks whether the features are counts, so that none depends on which vectors share a batch.
    """

    def prepare(self, inputs: Tensor, standardise: bool) -> Tensor:
        """Scale every vector to a mean absolute value of one.

        For counts that is their L1 norm brought to D, which takes out how many visual words were found. With
        `inputs.standardise` then the signed square root of each value (for counts the Hellinger map, Arandjelović and
        Zisserman 2012), and every vector to zero mean and unit variance.

        Parameters
        ----------
        inputs : Tensor, (N, D), float32
        standardise : bool

        Returns
        -------
        Tensor, (N, D), float32
        """
        scaled = functional.normalize(inputs, p=1, dim=1) * inputs.shape[1]
        if not standardise:
            return scaled
        roots = scaled.sign() * scaled.abs().sqrt()
        deviation, mean = torch.std_mean(roots, dim=1, correction=0, keepdim=True)
        return (roots - mean) / deviation.clamp(min=LEAST_DEVIATION)

    def randomise(
        self, inputs: Tensor, labels: Tensor, generator: torch.Generator, backgrounds: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mix some vectors with one of their class, then set random features of all to zero.

        Dropping visual words is what clutter, occlusion and another sensor do to a histogram.
        """
        by_chance = _uniform(inputs, 1, generator) < MIXED
        mixed = torch.where(by_chance, _mixed(inputs, labels, generator), inputs)
        share = WORD_DROPOUT * _uniform(inputs, 1, generator)
        return _dropped(mixed, share, generator), labels

    def view(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """Set random features of the vectors to zero."""
        return _dropped(inputs, VIEW_DROPOUT, generator)


def _mixed(inputs: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Each vector in random proportion with one of the batch of the same label, which is scaled to its norm first.

    A vector may meet itself, and does so where its label is unknown: it stays as it is.
    """
    same = (labels[:, None] == labels) & (labels >= 0)[:, None]
    same.fill_diagonal_(True)
    partners = _uniform(inputs, len(inputs), generator).masked_fill(~same, -1).argmax(dim=1)
    norms = inputs.abs().sum(dim=1, keepdim=True)
    others = inputs[partners] * (norms / norms[partners].clamp(min=torch.finfo(norms.dtype).tiny))
    return inputs.lerp(others, _uniform(inputs, 1, generator))


def _dropped(inputs: Tensor, share: Tensor | float, generator: torch.Generator) -> Tensor:
    """The vectors with this share of their features, (N, 1) or one for all, set to zero at random."""
    return inputs * (_uniform(inputs, inputs.shape[1], generator) >= share)


def _uniform(inputs: Tensor, columns: int, generator: torch.Generator) -> Tensor:
    """Draws from 0 to 1, (N, columns), on the inputs' device; the generator may be on another."""
    return torch.rand(len(inputs), columns, generator=generator, device=generator.device).to(inputs.device)
