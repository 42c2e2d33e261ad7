"""Trains by maximum classifier discrepancy (MCD): G learns to make two classifiers agree on the target.

Source: Saito et al., "Maximum classifier discrepancy for unsupervised domain adaptation", CVPR 2018, and its official
code (mil-tokyo/MCD_DA). One step has three parts (Sec. 3.3 of the paper)::

    A  G, F_1, F_2 minimise the cross-entropy on the source, summed over both classifiers
    B  F_1, F_2 minimise the same minus the discrepancy on the target; G is fixed
    C  G minimises the discrepancy on the target, four times; F_1, F_2 are fixed

*Fixed* is said of the weights: as in the official code, BatchNorm is in training mode all the time, and sees source
and target batches separately, if the caller put the network in that mode.

Our choice: that the second classifier is taught after the first, where the network comes pre-trained.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from fmtda.adaptation.gradient_step import descend
from fmtda.adaptation.losses import discrepancy
from fmtda.adaptation.network import Network, at_full_size

GENERATOR_STEPS = 4
"""How often C is repeated, as in the official code."""


class TwoHeads(Network):
    """Has a second classifier F_2 beside a network's own, and predicts the mean of both classifiers' probabilities.

    Parameters
    ----------
    network : Network
        G, and F_1 as its `classifier`; both are shared, not copied.
    second_classifier : nn.Module
        F_2, of F_1's shape. Equal weights would stay equal: their discrepancy has no gradient.
    """

    def __init__(self, network: Network, second_classifier: nn.Module) -> None:
        super().__init__(network.feature_extractor, network.classifier, network.feature_size)
        self.second_classifier = second_classifier

    @property
    def heads(self) -> tuple[nn.Module, nn.Module]:
        """Return F_1 and F_2."""
        return self.classifier, self.second_classifier

    def logits(self, features: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
        """Compute log((p_1 + p_2) / 2): logits whose softmax is the mean of both classifiers' probabilities."""
        first, second = (at_full_size(head(features), size).log_softmax(dim=1) for head in self.heads)
        return torch.logaddexp(first, second) - math.log(2)

    def cross_entropy(self, features: Tensor, labels: Tensor) -> Tensor:
        """Add up the cross-entropies of both classifiers.

        Parameters
        ----------
        features : Tensor, (B, D) or (B, h, w, D)
        labels : Tensor
            int64 (B,) or (B, H, W), -1 where unknown.
        """
        both = (at_full_size(head(features), labels.shape[-2:]) for head in self.heads)
        first, second = (functional.cross_entropy(logits, labels, ignore_index=-1) for logits in both)
        return first + second


class MCD:
    """Makes the steps of MCD on a network, with Adam for G and for both classifiers, as in the official code.

    Parameters
    ----------
    network : TwoHeads
        Trained in place; in training mode, or in evaluation mode where BatchNorm is to keep its statistics.
    learning_rate, weight_decay : float
        2e-4 and 5e-4 in the official code.
    """

    def __init__(self, network: TwoHeads, learning_rate: float, weight_decay: float) -> None:
        self.network = network
        self.on_extractor = torch.optim.Adam(
            network.feature_extractor.parameters(), lr=learning_rate, weight_decay=weight_decay
        )
        head_parameters = [parameter for head in network.heads for parameter in head.parameters()]
        self.on_heads = torch.optim.Adam(head_parameters, lr=learning_rate, weight_decay=weight_decay)

    def step(self, source: tuple[Tensor, Tensor], target: Tensor) -> dict[str, float]:
        """Do A, B and C once, with `GENERATOR_STEPS` repetitions of C.

        Parameters
        ----------
        source : pair of Tensor
            Inputs (B, ...) and labels, int64 (B,) or (B, H, W), -1 where unknown.
        target : Tensor, (B, ...)
            Unlabelled inputs.

        Returns
        -------
        dict
            `cross-entropy` of A; `discrepancy-maximised` before B's step, `discrepancy` before C's last one.
        """
        cross_entropy = self.classify(*source)
        maximised = self.separate(target, source)
        return {"cross-entropy": cross_entropy, "discrepancy-maximised": maximised, "discrepancy": self.agree(target)}

    def classify(self, inputs: Tensor, labels: Tensor) -> float:
        """Do A: one step of G, F_1 and F_2 on labelled source examples; return the classifiers' mean cross-entropy."""
        loss = self.network.cross_entropy(self.network.feature_extractor(inputs), labels)
        descend(loss, self.on_extractor, self.on_heads)
        return loss.item() / 2

    def separate(self, target: Tensor, source: tuple[Tensor, Tensor] | None = None) -> float:
        """Do B: one step of F_1 and F_2 up their discrepancy on the target; return what it was.

        Without a source, as on a client of naive federated MCD, nothing holds them to their task.
        """
        network = self.network
        cross_entropy: Tensor | float = 0.0
        if source is not None:
            inputs, labels = source
            with torch.no_grad():
                features = network.feature_extractor(inputs)
            cross_entropy = network.cross_entropy(features, labels)
        with torch.no_grad():
            features = network.features(target)
        distance = self._discrepancy(features)
        descend(cross_entropy - distance, self.on_heads)
        return distance.item()

    def agree(self, target: Tensor) -> float:
        """Do C: `GENERATOR_STEPS` steps of G down the discrepancy on the target; return what it was before the last."""
        for _ in range(GENERATOR_STEPS):
            distance = self._discrepancy(self.network.features(target))
            descend(distance, self.on_extractor)
        return distance.item()

    def _discrepancy(self, rows: Tensor) -> Tensor:
        p_1, p_2 = (head(rows).softmax(dim=-1) for head in self.network.heads)
        return discrepancy(p_1, p_2)


def train_second_classifier(
    network: TwoHeads, batches: Iterable[tuple[Tensor, Tensor]], learning_rate: float, weight_decay: float
) -> None:
    """Teach a fresh F_2 the source while G and F_1 stay as they are, for a network pre-trained with one classifier.

    In the official code both start fresh together.

    Parameters
    ----------
    network : TwoHeads
        Left in evaluation mode.
    batches : iterable of pairs
        Labelled source batches, as `MCD.step` takes them.
    learning_rate, weight_decay : float
        AdamW's.
    """
    network.eval()
    network.second_classifier.train()
    optimiser = torch.optim.AdamW(network.second_classifier.parameters(), lr=learning_rate, weight_decay=weight_decay)
    for inputs, labels in batches:
        with torch.no_grad():
            features = network.feature_extractor(inputs)
        logits = at_full_size(network.second_classifier(features), labels.shape[-2:])
        descend(functional.cross_entropy(logits, labels, ignore_index=-1), optimiser)
    network.eval()
