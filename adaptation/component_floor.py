"""Leaves out components of a mixture that hold few examples: a Gaussian on one or two of them would show them.

A mean over few examples lies near each of them; over one it is that example's features. Without noise the floor is a
precaution and no guarantee.

Our choice: the floor itself, and that all examples become one Gaussian where no component meets it.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Components(NamedTuple):
    """Holds weights (K,), means (K, D) and variances (K, D) of a diagonal Gaussian mixture."""

    weights: Tensor
    means: Tensor
    variances: Tensor


def with_enough_examples(components: Components, counts: Tensor, floor: int) -> Components:
    """Leave out the components that hold too few examples; the weights of the others sum to one again.

    Parameters
    ----------
    components : Components
    counts : Tensor, shape (K,)
        Examples that each holds: its responsibilities for all of them, added up.
    floor : int
        Examples that a component needs. Where none has as many, all become one Gaussian with the mixture's mean and
        variance.

    Returns
    -------
    Components
        The same object where nothing falls short.
    """
    enough = counts >= floor
    if enough.all():
        return components
    if not enough.any():
        mean = components.weights @ components.means
        variance = components.weights @ (components.variances + (components.means - mean).square())
        return Components(torch.ones_like(components.weights[:1]), mean[None], variance[None])
    weights, means, variances = (values[enough] for values in components)
    return Components(weights / weights.sum(), means, variances)
