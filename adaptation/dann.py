"""Trains domain-adversarially (DANN): a discriminator tells source from target features, and G learns to mislead it.

Source: Ganin et al., "Domain-adversarial training of neural networks", JMLR 2016. G's gradient passes a *gradient
reversal layer*: the discriminator goes down the loss that G goes up, in one and the same step.

Our choice: the discriminator's hidden width, and Adam, where the paper has SGD with a schedule of its own.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from fmtda.adaptation.gradient_step import descend
from fmtda.adaptation.network import Network

HIDDEN = 128
"""The width of the discriminator's hidden layer."""


def reverse_gradient(values: Tensor, weight: float) -> Tensor:
    """Return the values as they are; on the way back, the gradient is multiplied by ``-weight``."""
    return _ReverseGradient.apply(values, weight)


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(context, values: Tensor, weight: float) -> Tensor:
        context.weight = weight
        return values.view_as(values)

    @staticmethod
    def backward(context, gradient: Tensor) -> tuple[Tensor, None]:
        return -context.weight * gradient, None


def reversal_weight(progress: float) -> float:
    """Follow the paper's schedule ``2 / (1 + exp(-10 p)) - 1``: 0 at first, while a fresh discriminator would do harm.

    Parameters
    ----------
    progress : float
        p, the share of the whole training that is done, in [0, 1].
    """
    return 2 / (1 + math.exp(-10 * progress)) - 1


class Discriminator(nn.Sequential):
    """Tells domains apart: features (R, D) to logits (R, 1), positive for the source."""

    def __init__(self, feature_size: int) -> None:
        super().__init__(nn.Linear(feature_size, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))

    @classmethod
    def seeded(cls, feature_size: int, seed: int) -> "Discriminator":
        """Build a discriminator with weights by the seed; torch's global generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(feature_size)


class Discriminated(Network):
    """Holds a network and a domain discriminator beside its classifier; it predicts as it would without.

    Parameters
    ----------
    network : Network
        G and F, shared, not copied.
    discriminator : nn.Module
        See `Discriminator`.
    """

    def __init__(self, network: Network, discriminator: nn.Module) -> None:
        super().__init__(network.feature_extractor, network.classifier, network.feature_size)
        self.discriminator = discriminator


def domain_loss(discriminator: nn.Module, source: Tensor, target: Tensor, weight: float) -> Tensor:
    """Compute the cross-entropy of telling source from target features, the gradient to the features reversed.

    Parameters
    ----------
    discriminator : nn.Module
    source, target : Tensor, (R, D) and (S, D)
        Feature rows. Both domains count for a half, whatever R and S.
    weight : float
        See `reverse_gradient`.

    Returns
    -------
    Tensor, scalar
        In nats; log 2 where nothing can be told.
    """
    told = [discriminator(reverse_gradient(rows, weight)) for rows in (source, target)]
    truth = (torch.ones_like(told[0]), torch.zeros_like(told[1]))
    losses = [functional.binary_cross_entropy_with_logits(*pair) for pair in zip(told, truth, strict=True)]
    return (losses[0] + losses[1]) / 2


class DANN:
    """Makes the steps of DANN, with Adam.

    Parameters
    ----------
    network : Discriminated
        Trained in place, in the mode that the caller put it in.
    learning_rate, weight_decay : float
        Adam's.
    """

    def __init__(self, network: Discriminated, learning_rate: float, weight_decay: float) -> None:
        self.network = network
        self.on_classifier = torch.optim.Adam(
            network.classifier.parameters(), lr=learning_rate, weight_decay=weight_decay
        )
        adversaries = [*network.feature_extractor.parameters(), *network.discriminator.parameters()]
        self.on_adversaries = torch.optim.Adam(adversaries, lr=learning_rate, weight_decay=weight_decay)

    def step(self, source: tuple[Tensor, Tensor], target: Tensor, weight: float) -> dict[str, float]:
        """Make one step of G, F and the discriminator on a labelled source batch and an unlabelled target batch.

        Parameters
        ----------
        source : pair of Tensor
            Inputs (B, ...) and labels, int64 (B,) or (B, H, W), -1 where unknown.
        target : Tensor, (B, ...)
        weight : float
            Of the reversed gradient, see `reversal_weight`.

        Returns
        -------
        dict
            `cross-entropy` and `domain-loss`.
        """
        inputs, labels = source
        features = self.network.feature_extractor(inputs)
        logits = self.network.logits(features, inputs.shape[-2:])
        cross_entropy = functional.cross_entropy(logits, labels, ignore_index=-1)
        target_features = self.network.features(target)
        told = domain_loss(self.network.discriminator, features.flatten(0, -2), target_features, weight)
        descend(cross_entropy + told, self.on_classifier, self.on_adversaries)
        return {"cross-entropy": cross_entropy.item(), "domain-loss": told.item()}

    def mislead(self, source_features: Tensor, target_features: Tensor, weight: float) -> float:
        """Make one step of G and the discriminator where there are only features of the source; return the domain loss.

        Parameters
        ----------
        source_features : Tensor, (R, D)
            Constants.
        target_features : Tensor, (S, D)
            Out of G, with their gradient.
        weight : float
            As in `step`.
        """
        loss = domain_loss(self.network.discriminator, source_features, target_features, weight)
        descend(loss, self.on_adversaries)
        return loss.item()
