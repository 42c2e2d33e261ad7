"""Measures how good a classifier is on a domain without labels; settings are chosen and guards decide by it.

Shapes: N examples, C classes. Each takes class probabilities and gives one number; a collapsed classifier, one
that puts every example into one class with certainty, is the test that a criterion has to pass to be used alone.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional


def mean_entropy(probabilities: Tensor) -> float:
    """Compute the mean entropy of the predictions: low where the classifier is certain.

    Alone it can't choose: a collapsed classifier has the best value, 0. Morerio et al., "Minimal-entropy
    correlation alignment", ICLR 2018, choose by it.

    Parameters
    ----------
    probabilities : Tensor, (N, C)

    Returns
    -------
    float
        In nats, in [0, log C].
    """
    _check(probabilities)
    return torch.special.entr(probabilities).sum(dim=1).mean().item()


def prediction_information(probabilities: Tensor) -> float:
    """Compute the information between an example and its class: high where each is certain and all classes occur.

    It is the negative of `losses.information_maximisation`, over all examples at once (Bridle et al.,
    "Unsupervised classifiers, mutual information and phantom targets", NeurIPS 1991; Liang et al., ICML 2020).
    A collapsed classifier has the worst value. What was trained to maximise it is judged kindly by it.

    Parameters
    ----------
    probabilities : Tensor, (N, C)

    Returns
    -------
    float
        Entropy of the mean prediction minus `mean_entropy`, in nats, in [0, log C].
    """
    return torch.special.entr(probabilities.mean(dim=0)).sum().item() - mean_entropy(probabilities)


def soft_neighbourhood_density(probabilities: Tensor, temperature: float = 0.05, block: int = 1024) -> float:
    """Count softly how many examples share an example's prediction: many where predictions lie in dense clusters.

    Saito et al., "Tune it the right way: unsupervised validation of domain adaptation via soft neighborhood
    density", ICCV 2021: cosine similarities of the predictions, without those to themselves, become a softmax
    over the other examples; the score is the mean entropy of these. A collapsed classifier has the best value,
    log(N - 1), so it needs company.

    Parameters
    ----------
    probabilities : Tensor, (N, C)
        Two examples at least. Scores of different N are not comparable.
    temperature : float
        Of the softmax, above 0; 0.05 is the paper's.
    block : int
        Rows of the (N, N) similarities in memory at once; the result does not depend on it.

    Returns
    -------
    float
        In nats, in [0, log(N - 1)].
    """
    _check(probabilities)
    examples = len(probabilities)
    if examples < 2:
        raise ValueError(f"{examples} example given; a neighbourhood needs two at least")
    directions = functional.normalize(probabilities, dim=1)
    total = 0.0
    for first in range(0, examples, block):
        scores = directions[first : first + block] @ directions.T / temperature
        rows = torch.arange(len(scores), device=scores.device)
        scores[rows, first + rows] = -math.inf
        total += torch.special.entr(scores.softmax(dim=1)).sum().item()
    return total / examples


def view_information(probabilities: Tensor, view_probabilities: Tensor) -> float:
    """Compute the mutual information of the classes that two views of an example get.

    Ji et al., "Invariant information clustering", ICCV 2019: P is the mean over examples of the outer product of
    the two predictions, made symmetric; the score is the mutual information of P's two margins. It is high where
    predictions are certain, the same in both views, and spread over the classes. A collapsed classifier has the
    worst value.

    Parameters
    ----------
    probabilities, view_probabilities : Tensor, (N, C)
        Of the same examples in the same order.

    Returns
    -------
    float
        In nats, in [0, log C].
    """
    _check_pair(probabilities, view_probabilities)
    joint = probabilities.T @ view_probabilities / len(probabilities)
    joint = (joint + joint.T) / 2
    margin = joint.sum(dim=0)
    return (2 * torch.special.entr(margin).sum() - torch.special.entr(joint).sum()).item()


def _check(probabilities: Tensor) -> None:
    if probabilities.ndim != 2 or len(probabilities) == 0:
        raise ValueError(
            f"probabilities have shape {tuple(probabilities.shape)}; (N, C) with N of at least 1 is needed"
        )


def _check_pair(probabilities: Tensor, view_probabilities: Tensor) -> None:
    _check(probabilities)
    if probabilities.shape != view_probabilities.shape:
        raise ValueError(
            f"the two views' probabilities have shapes {tuple(probabilities.shape)} and "
            f"{tuple(view_probabilities.shape)}; they must be equal"
        )
