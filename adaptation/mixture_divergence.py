"""Measures how far apart two diagonal Gaussian mixtures are.

The Kullback-Leibler divergence of two mixtures has no closed form. Taken here is its variational approximation::

    D(f || g) = sum_a pi_a log( sum_a' pi_a' exp(-KL(f_a || f_a')) / sum_b omega_b exp(-KL(f_a || g_b)) )

in both directions, added up. It is exact for single Gaussians, and exactly zero for equal mixtures.

Source: Hershey and Olsen, "Approximating the Kullback Leibler divergence between Gaussian mixture models", ICASSP 2007.

Our choice: that the two directions are added up, as Jeffreys did for densities.

Shapes: K and L components, D feature dimensions.
"""

from torch import Tensor

from fmtda.adaptation.mixture import LOG_ZERO, Mixture


def divergence(f: Mixture, g: Mixture) -> float:
    """Compute the symmetric divergence of two mixtures over the same features, in nats, from 0 up.

    Raises
    ------
    ValueError
        Where they differ in their number of dimensions.
    """
    dimensions = f.means.shape[-1], g.means.shape[-1]
    if dimensions[0] != dimensions[1]:
        raise ValueError(f"mixtures over {dimensions[0]} and {dimensions[1]} dimensions, expected the same")
    return max(0.0, _one_way(f, g) + _one_way(g, f))  # the approximation may fall below zero, a divergence does not


def _one_way(f: Mixture, g: Mixture) -> float:
    """D(f || g)."""
    inside, across = (_log_overlaps(f, other).logsumexp(dim=-1) for other in (f, g))
    return (f.weights.double() @ (inside - across)).item()


def _log_overlaps(f: Mixture, g: Mixture) -> Tensor:
    """log omega_b - KL(f_a || g_b) of every pair of components: float64 (K, L)."""
    means, variances = f.means.double(), f.variances.double()
    precisions = g.variances.double().reciprocal()
    slopes = g.means.double() * precisions
    distances = (variances + means.square()) @ precisions.T - 2 * means @ slopes.T  # both need float64: they cancel
    ours = (1 + variances.log()).sum(dim=-1)
    theirs = (g.means.double() * slopes - precisions.log()).sum(dim=-1)
    log_weights = g.weights.double().log().clamp(min=LOG_ZERO)
    return log_weights - 0.5 * (distances + theirs - ours[:, None])
