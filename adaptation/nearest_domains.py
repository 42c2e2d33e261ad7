"""Finds the known domains nearest to a new one, and blends what their classifiers give it to start from.

A client that joins a federation under way uploads its mixture; the rest is the server's: the nearest mixtures
(`nearest`), and the mean of their classifiers (`blend`), or one that a few bad ones don't decide (`trimmed_blend`).

Our choice: all of it, as FMTDA knows no such clients.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from fmtda.adaptation.mixture import Mixture
from fmtda.adaptation.mixture_divergence import divergence

NEIGHBOURS = 3
"""How many clients' classifiers are blended at most."""


class Neighbour(NamedTuple):
    """Holds one of the nearest domains' divergence in nats and its weight in the blend; the weights add up to one."""

    divergence: float
    weight: float


def nearest(mixture: Mixture, known: Mapping[str, Mixture], count: int = NEIGHBOURS) -> dict[str, Neighbour]:
    """Find the known mixtures of smallest divergence, the nearest first; names decide between equal ones.

    Notes
    -----
    A neighbour at divergence d has a weight proportional to exp(-d / d_1), where d_1 is the nearest one's. Divergences
    grow with the number of dimensions, to hundreds of nats in 128: a softmax of -d itself would take the nearest alone.
    So it counts how many times as far a neighbour is: at twice d_1 it has 0.37 of the nearest one's weight.
    """
    distances = {name: divergence(mixture, known[name]) for name in sorted(known)}
    chosen = sorted(distances, key=distances.__getitem__)[:count]
    if not chosen:
        return {}
    unit = max(distances[chosen[0]], torch.finfo(torch.float64).tiny)
    weights = torch.tensor([-distances[name] / unit for name in chosen], dtype=torch.float64).softmax(dim=0).tolist()
    return {name: Neighbour(distances[name], weight) for name, weight in zip(chosen, weights, strict=True)}


def trimmed_blend(
    classifiers: Mapping[str, Mapping[str, Tensor]], weights: Mapping[str, float], bad: int
) -> dict[str, Tensor]:
    """Average classifiers as `blend` does, but without the `bad` largest and smallest values of every parameter.

    Whatever so many of the clients send, each number of the result lies between two that others sent: of more than
    `bad` values that are as large or larger, one at least is somebody else's, and so below.

    Parameters
    ----------
    classifiers, weights
        See `blend`.
    bad : int
        How many clients may send anything; 0 gives what `blend` gives, bit by bit.

    Raises
    ------
    ValueError
        With fewer than ``2 * bad + 1`` weights: nothing would be left.

    Notes
    -----
    Weights are divided by the sum of those that are left in a place; where that is zero, as next to a client whose
    mixture is equal to the new one's, what is left counts the same.
    """
    if len(weights) < 2 * bad + 1:
        raise ValueError(f"{len(weights)} classifiers, expected {2 * bad + 1} or more where {bad} may be bad")
    if not bad:
        return blend(classifiers, weights)
    first = classifiers[next(iter(weights))]
    shares = torch.tensor([*weights.values()], dtype=torch.float64)
    result = {}
    for name, like in first.items():
        stacked = torch.stack([classifiers[client][name].double().flatten() for client in weights])  # (M, P)
        ordered, order = stacked.sort(dim=0, stable=True)
        kept, counting = ordered[bad : len(weights) - bad], shares[order][bad : len(weights) - bad]
        total = counting.sum(dim=0)
        counting = torch.where(total > 0, counting, torch.ones_like(counting))
        mean = (counting * kept).sum(dim=0) / counting.sum(dim=0)
        mean = mean.clamp(kept[0], kept[-1])  # a sum of shares of the same number may differ from it in the last bit
        result[name] = mean.reshape(like.shape).to(like.dtype)
    return result


def blend(classifiers: Mapping[str, Mapping[str, Tensor]], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Average classifiers of one architecture with weights, parameter by parameter.

    Parameters
    ----------
    classifiers : mapping of str to mapping of str to Tensor
        Parameters by their names, of every classifier by its client.
    weights : mapping of str to float
        Adding up to one; clients without one don't count.

    Notes
    -----
    For a linear classifier, which most networks here have, the logits are the weighted mean of the others' logits.
    Deeper ones all began as the same F_g and took a few hundred steps from there, which is where means of weights are
    known to serve (Wortsman et al., "Model soups", ICML 2022).
    """
    first = classifiers[next(iter(weights))]
    mean = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in first.items()}
    for client, weight in weights.items():
        for name, total in mean.items():
            total += weight * classifiers[client][name].double()
    return {name: value.to(first[name].dtype) for name, value in mean.items()}
