"""Holds what DualAdapt minimises: classifier discrepancy, Eq. 5 (client), Eq. 6 (server), and the extras' losses.

Shapes: B examples of a batch, C classes, M clients. Nothing here keeps state or draws random numbers.

Sources: FMTDA is Yao et al., "Federated multi-target domain adaptation", WACV 2022; MCD is Saito et al.,
"Maximum classifier discrepancy for unsupervised domain adaptation", CVPR 2018.

Our choice: the mean instead of the sum over classes in the discrepancy; that Eq. 6 is trimmed on each example, before
the mean over examples; that information maximisation may expect classes of unequal frequency; and that the
cross-entropy to pseudo-labels is averaged over the confident examples alone.
"""

import math
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional


class LocalClassifierLoss(NamedTuple):
    """Holds Eq. 5 and its two parts: ``total = cross_entropy - discrepancy_weight * discrepancy``."""

    total: Tensor
    cross_entropy: Tensor
    discrepancy: Tensor


def discrepancy(p: Tensor, q: Tensor) -> Tensor:
    """Compute the L1 distance of two classifiers' class probabilities, ``L_adv`` of the paper.

    Parameters
    ----------
    p, q : Tensor, shape (..., B, C)
        Class probabilities. They may broadcast against each other.

    Returns
    -------
    Tensor, shape (...)
        Mean over examples *and* classes, in [0, 2 / C].

    Notes
    -----
    The mean is taken instead of the norm's sum over classes, as in MCD's official code. Where p equals q the
    gradient is zero: a local classifier that starts as a copy of the global one departs from it by Eq. 5's
    cross-entropy first.
    """
    return (p - q).abs().mean(dim=(-2, -1))


def local_classifier_loss(
    local_logits: Tensor, global_logits: Tensor, weights: Tensor, discrepancy_weight: float
) -> LocalClassifierLoss:
    """Compute what client i minimises over its local classifier F_l (FMTDA, Eq. 5).

    F_l keeps to F_g's decisions where an example looks like the source, and departs from F_g elsewhere::

        E_x [ w_S(x) CE(F_l(z), argmax F_g(z)) ]  -  lambda E_x || p_g - p_l ||_1

    Parameters
    ----------
    local_logits : Tensor, shape (B, C)
        F_l(z).
    global_logits : Tensor, shape (B, C)
        F_g(z); no gradient flows into them.
    weights : Tensor, shape (B,)
        w_S(x) in [0, 1]: the typicality of each example under the source mixture.
    discrepancy_weight : float
        lambda.

    Returns
    -------
    LocalClassifierLoss
        The total, and its two parts before the weight and the sign.
    """
    global_logits = global_logits.detach()
    cross_entropies = functional.cross_entropy(local_logits, global_logits.argmax(dim=-1), reduction="none")
    cross_entropy = (weights * cross_entropies).mean()
    distance = discrepancy(global_logits.softmax(dim=-1), local_logits.softmax(dim=-1))
    return LocalClassifierLoss(cross_entropy - discrepancy_weight * distance, cross_entropy, distance)


def alignment_loss(
    global_probabilities: Tensor,
    local_probabilities: Tensor,
    weights: Tensor,
    robust_share: float = 0.0,
    client_weights: Tensor | None = None,
) -> Tensor:
    """Compute what the server minimises over the feature extractor G (FMTDA, Eq. 6).

    On mixed source examples x', F_g should agree with every client's classifier where x' looks like that
    client's domain::

        1/M sum_i E_x' [ w_T^i(x') || p_g(x') - p_l^i(x') ||_1 ]

    Parameters
    ----------
    global_probabilities : Tensor, shape (B, C)
        p_g(x').
    local_probabilities : Tensor, shape (M, B, C)
        p_l^i(x') of each client.
    weights : Tensor, shape (M, B)
        w_T^i(x') in [0, 1]: the typicality of x' under each client's mixture.
    robust_share : float
        In [0, 0.5): the share of the clients whose uploads may be anything. 0 is the paper's plain mean.
    client_weights : Tensor, shape (M,), optional
        How much each client counts, above 0: an extra, not part of FMTDA. Default: all the same.

    Returns
    -------
    Tensor, scalar
        Mean over clients and examples of the weighted L1; the L1 is a mean over classes (see `discrepancy`). With a
        `robust_share`, the mean over clients is a `trimmed_mean` on each example.
    """
    distances = (global_probabilities - local_probabilities).abs().mean(dim=-1)
    weighted = weights * distances
    if trimmed(len(weighted), robust_share) or client_weights is not None:
        return trimmed_mean(weighted, robust_share, client_weights).mean()
    return weighted.mean()


def trimmed_mean(values: Tensor, share: float, weights: Tensor | None = None) -> Tensor:
    """Average over the first axis without its largest and smallest values: an extra, not part of FMTDA.

    As long as no more than the trimmed number of rows are arbitrary, the result lies between the smallest and the
    largest value of the others, and what was left out gets no gradient.

    Source: Yin et al., "Byzantine-robust distributed learning: towards optimal statistical rates", ICML 2018.

    Parameters
    ----------
    values : Tensor, shape (M, ...)
    share : float
        In [0, 0.5): of the M values at a place, this share is left out at either end, rounded down.
    weights : Tensor, shape (M,), optional
        Of the rows in the mean over what is left, above 0. They have no say in what is left out: a row of a small
        weight would else always be, and the mean of what is left stays between the others' values all the same.

    Returns
    -------
    Tensor, shape (...)

    Raises
    ------
    ValueError
        If nothing would be left.
    """
    if not 0 <= share < 0.5:
        raise ValueError(f"share={share} must be at least 0 and below 0.5")
    count = trimmed(len(values), share)
    ordered = values.sort(dim=0)
    left = slice(count, len(values) - count)
    if weights is None:
        return ordered.values[left].mean(dim=0)
    weights = weights.to(values)[ordered.indices[left]]
    return (weights * ordered.values[left]).sum(dim=0) / weights.sum(dim=0)


def trimmed(count: int, share: float) -> int:
    """Count how many of `count` values `trimmed_mean` leaves out at either end."""
    return math.floor(count * share + 1e-9)  # 0.29 of 100 are 29, though 0.29 * 100 is less


def information_maximisation(logits: Tensor, class_shares: Tensor | None = None) -> Tensor:
    """Compute a loss that is low where predictions are certain and all classes occur: an extra, not part of FMTDA.

    Source: Liang et al., "Do we really need to access the source data?" (SHOT), ICML 2020.

    Parameters
    ----------
    logits : Tensor, shape (B, C)
    class_shares : Tensor, shape (C,), optional
        How often each class is expected, above 0, summing to one; all equally often without.

    Returns
    -------
    Tensor, scalar
        Mean entropy of the predictions minus the entropy of the mean prediction, in nats; in [-log C, 0]. With
        `class_shares` the second term is the divergence KL(mean prediction || shares), lowest at 0; for equal shares
        that differs from the first form by log C alone.
    """
    log_probabilities = logits.log_softmax(dim=-1)
    mean_entropy = -(log_probabilities.exp() * log_probabilities).sum(dim=-1).mean()
    # the mean prediction, in the log domain: no log(0) for a class that nobody predicts
    log_mean = log_probabilities.logsumexp(dim=0) - math.log(len(logits))
    expected = 0.0 if class_shares is None else class_shares.log()
    return mean_entropy + (log_mean.exp() * (log_mean - expected)).sum()


def confident_cross_entropy(logits: Tensor, teacher_probabilities: Tensor, threshold: float) -> Tensor:
    """Compute the cross-entropy to the pseudo-labels of a confident teacher: an extra, not part of FMTDA.

    Parameters
    ----------
    logits : Tensor, shape (B, C)
        The student's.
    teacher_probabilities : Tensor, shape (B, C)
        Their argmax is the pseudo-label; no gradient flows into them.
    threshold : float
        Only examples whose teacher maximum is greater than this count.

    Returns
    -------
    Tensor, scalar
        Averaged over the confident examples, so that a hesitant teacher does not shrink the step;
        FixMatch averages over the whole batch. Zero with a zero gradient where none is confident.
    """
    confidence, pseudo_labels = teacher_probabilities.detach().max(dim=-1)
    confident = (confidence > threshold).to(logits.dtype)
    cross_entropies = functional.cross_entropy(logits, pseudo_labels, reduction="none")
    return (confident * cross_entropies).sum() / confident.sum().clamp(min=1)
