"""Fits W_T with noise, which hides once and for all what the mixture would say of any single example.

Stepwise EM asks for the examples again and again. Here they are asked once: one whole step of EM from W_S, whose
responsibilities come from a mixture that the server made and so give nothing away. Of each example x, with s its
responsibilities r_k(x) under W_S and d_k = (z - mu_k) / scale its deviation from each of W_S's means, the sums of ::

    r_k,    r_k clip(d_k),    r_k clip(d_k^2)

are taken, with both vectors cut to a norm of sqrt(D). Divided by sqrt(D), each of the three changes by 1 at most when
an example is struck out (the r_k are positive and sum to one), so that all together change by sqrt(3): the sensitivity
of *one* Gaussian mechanism, whose noise is `noise` times that in every entry.

The log-likelihoods' quantiles, which `adaptation.mixture` takes from held-out examples, would show single ones. Here
two noised sums over the held-out examples give the mean and the spread of a bell curve (over the logarithm of how far
below the mixture's top an example lies), and its quantiles are sent. No example is both fitted and held out, so the
one mechanism or the other sees it: together they cost as much as one (parallel composition).

All that follows the noise is computed from noised sums, from W_S and from the number of examples, and costs nothing.

Sources: Dwork and Roth, "The algorithmic foundations of differential privacy", 2014, for the Gaussian mechanism and
both kinds of composition; Park et al., "DP-EM: differentially private expectation maximization", AISTATS 2017, for
noised statistics of EM.

Our choice: the one step from W_S, the clipping, the shrinkage and its spread, and the quantiles with what is expected
of depths.

Shapes: N examples, K components, D features.
"""

import math

import torch
from torch import Tensor

from fmtda.adaptation.component_floor import Components, with_enough_examples
from fmtda.adaptation.mixture import QUANTILES, Mixture, components_for, variance_floor
from fmtda.adaptation.privacy_noise import Uniforms, normal

STATISTICS_SENSITIVITY = math.sqrt(3)
"""The sensitivity of all sums over the fitted examples together, in the units in which they are noised."""

QUANTILES_SENSITIVITY = math.sqrt(2)
"""The sensitivity of the two sums over the held-out examples."""

SIGNAL = 0.5
"""The spread that a component's deviations from W_S are taken to have, in units of the scale: what is left of a noised
average is the share that a Wiener filter leaves at this spread."""

OCTAVES = 2.0
"""How far the logarithm (base 2) of an example's depth may lie from the middle of what is expected; it is cut there."""

EXPECTED_SHIFT = 1.0
"""How many octaves deeper than the source's middle example those of a target are expected to lie under W_S."""

USUAL_SPREAD = 0.5
"""The spread of depths in octaves where noise hides it."""


def fit_privately(
    source_mixture: Mixture, fitted: Tensor, held_out: Tensor, noise: float, floor: int, uniforms: Uniforms
) -> Mixture:
    """Make one step of EM from W_S on a client's features, and take quantiles, all under noise.

    Parameters
    ----------
    source_mixture : Mixture
        W_S.
    fitted, held_out : Tensor, shapes (N, D) and (M, D)
        Of different examples; each row must come from its own example alone.
    noise : float
        Noise multiplier: of both mechanisms, the noise's standard deviation by the sensitivity.
    floor : int
        Examples, as the noised sums count them, that a component needs (`adaptation.component_floor`).
    uniforms : Uniforms
        Source of the noise.

    Returns
    -------
    Mixture
        With at most one component per 20 examples: those that hold most, as the noised sums count.
    """
    components, counts = noised_components(source_mixture, fitted, noise, uniforms)
    most = counts.topk(components_for(len(fitted), len(counts))).indices.sort().values
    weights, means, variances = (values[most] for values in components)
    components = with_enough_examples(Components(weights / weights.sum(), means, variances), counts[most], floor)
    weights, means, variances = (values.float() for values in components)
    mixture = Mixture(weights, means, variances, source_mixture.quantiles)
    middle = _octaves(source_mixture, source_mixture.quantiles[QUANTILES // 2].double()) + EXPECTED_SHIFT
    quantiles = noised_quantiles(mixture, held_out, middle.item(), noise, uniforms)
    return Mixture(weights, means, variances, quantiles)


def noised_components(
    source_mixture: Mixture, features: Tensor, noise: float, uniforms: Uniforms, radius: float | None = None
) -> tuple[Components, Tensor]:
    """Compute W_S after one step of EM whose statistics are clipped and noised.

    Parameters
    ----------
    radius : float, optional
        Norm to which deviations and their squares are cut. Default: sqrt(D). Without noise and with an infinite one
        this is a step of EM.

    Returns
    -------
    components : Components
        float64. Averages of a component with few examples lean towards W_S's, as the noise demands.
    counts : Tensor, shape (K,)
        Examples of each, noised, between 0 and N.
    """
    dimensions = features.shape[1]
    radius = math.sqrt(dimensions) if radius is None else radius
    means, variances = source_mixture.means.double(), source_mixture.variances.double()
    overall = source_mixture.overall_variance()
    scale = ((overall + overall.mean()) / 2).sqrt()  # a feature silent on the source would else decide every norm
    first, second = torch.zeros_like(means), torch.zeros_like(means)
    responsibilities = source_mixture.responsibilities(features)  # (N, K)
    for k, mean in enumerate(means):
        deviations = (features.double() - mean) / scale
        first[k] = responsibilities[:, k] @ _cut(deviations, radius)
        second[k] = responsibilities[:, k] @ _cut(deviations.square(), radius)
    counts = responsibilities.sum(dim=0)

    deviation = noise * STATISTICS_SENSITIVITY
    ridge = 0.0
    if noise:
        counts = (counts + deviation * _noise(counts, uniforms)).clamp(0, len(features))
        first += deviation * radius * _noise(first, uniforms)
        second += deviation * radius * _noise(second, uniforms)
        ridge = (deviation * radius / SIGNAL) ** 2
    kept = counts.square() / (counts.square() + ridge).clamp(min=torch.finfo(counts.dtype).tiny)
    average = (kept / counts.clamp(min=1e-12))[:, None]  # times a sum: the share `kept` of the average
    shift = average * first
    usual = variances / scale.square()
    spread = average * second + (1 - kept)[:, None] * usual - shift.square()
    weights = counts / counts.sum() if counts.any() else torch.full_like(counts, 1 / len(counts))
    floor = variance_floor(overall)
    return Components(weights, means + scale * shift, (spread * scale.square()).clamp(min=floor)), counts


def noised_quantiles(mixture: Mixture, held_out: Tensor, middle: float, noise: float, uniforms: Uniforms) -> Tensor:
    """Compute quantiles of the log-likelihood of a client's examples from two noised sums: float32 (33,).

    Parameters
    ----------
    mixture : Mixture
        W_T as it is sent; its own quantiles are not looked at.
    held_out : Tensor, shape (M, D)
    middle : float
        Octaves around which depths are expected; known without the examples.
    """
    offsets = (_octaves(mixture, mixture.log_likelihood(held_out)) - middle).clamp(-OCTAVES, OCTAVES) / OCTAVES
    sums = torch.stack([offsets.sum(), offsets.square().sum()])
    ridge = 0.0
    if noise:
        deviation = noise * QUANTILES_SENSITIVITY
        sums += deviation * _noise(sums, uniforms)
        ridge = (deviation / len(held_out)) ** 2
    mean, square = (sums / len(held_out)).tolist()
    mean = max(-1.0, min(1.0, mean))
    usual = (USUAL_SPREAD / OCTAVES) ** 2
    kept = usual**2 / (usual**2 + ridge)
    variance = max(kept * (square - mean**2) + (1 - kept) * usual, 1e-4)
    levels = (torch.arange(QUANTILES, dtype=torch.float64, device=held_out.device) + 0.5) / QUANTILES
    octaves = middle + OCTAVES * (mean + math.sqrt(variance) * torch.special.ndtri(levels))
    log_likelihoods = _top(mixture) - held_out.shape[1] * octaves.exp2()
    return log_likelihoods.flip(0).float()


def _top(mixture: Mixture) -> Tensor:
    """A log-likelihood that no example exceeds: that of lying on the mean of every component at once."""
    heights = -0.5 * (2 * math.pi * mixture.variances.double()).log().sum(dim=1)
    return (mixture.weights.double().log() + heights).logsumexp(dim=0)


def _octaves(mixture: Mixture, log_likelihoods: Tensor) -> Tensor:
    """The logarithm (base 2) of an example's depth below the mixture's top, in nats a dimension."""
    depth = (_top(mixture) - log_likelihoods) / mixture.means.shape[1]
    return depth.clamp(min=1e-12).log2()


def _cut(vectors: Tensor, radius: float) -> Tensor:
    """Each row (N, D) shortened to a norm of `radius` at most."""
    norms = vectors.norm(dim=1, keepdim=True)
    return vectors * (radius / norms.clamp(min=1e-12)).clamp(max=1)


def _noise(like: Tensor, uniforms: Uniforms) -> Tensor:
    return normal(like.shape, uniforms).to(like)
