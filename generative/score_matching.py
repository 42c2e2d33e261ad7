"""Learns a score, the gradient of a log-density, from examples alone, in four ways.

None needs the density: `exact` and `sliced` are Hyvarinen's identity, `denoising` and `noise_conditional` learn the
scores of noisy data, whose target is known. Sources: Hyvarinen, "Estimation of non-normalized statistical models by
score matching", JMLR 2005; Vincent, "A connection between score matching and denoising autoencoders", Neural
Computation 2011; Song, Garg, Shi and Ermon, "Sliced score matching", UAI 2019; NCSN is Song and Ermon, "Generative
modeling by estimating gradients of the data distribution", NeurIPS 2019, chapter 5 of the notes.

Our choice: the directions of `sliced`, signs, out of those that the paper allows.

Shapes: B examples, then any shape of an example, D numbers in all; L noise levels. Every objective gives one number
an example, (B,), summed over the D dimensions as in the papers, and is differentiable in the parameters of the score.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fmtda.generative.noise import integers, normal_like

Score = Callable[[Tensor], Tensor]
"""From points (B, ...) to the score at each, of the same shape, every example by itself."""


def exact(score: Score, points: Tensor) -> Tensor:
    """Compute tr(grad s(x)) + |s(x)|^2 / 2, with the trace of the whole Jacobian: D backward passes.

    Notes
    -----
    What is wanted is E |s - grad log p|^2 / 2 = E |s|^2 / 2 - E s . grad log p + constant. With
    p grad log p = grad p and integration by parts, where p s vanishes far away::

        E s . grad log p = integral of s . grad p = -integral of p tr(grad s) = -E tr(grad s)

    so that the unknown density is gone and the trace enters with a plus.
    """
    points = points.detach().requires_grad_()
    scores = score(points)
    flat = scores.flatten(1)
    trace = torch.zeros_like(flat[:, 0])
    for dimension in range(flat.shape[1]):
        (row,) = torch.autograd.grad(flat[:, dimension].sum(), points, create_graph=True)
        trace = trace + row.flatten(1)[:, dimension]
    return trace + half_squared_norm(scores)


def sliced(score: Score, points: Tensor, generator: torch.Generator, projections: int = 1) -> Tensor:
    """Compute v . grad(v . s(x)) + |s(x)|^2 / 2 for random directions v: one backward pass each, and no Jacobian.

    Parameters
    ----------
    score : callable
    points : Tensor, (B, ...)
    generator : torch.Generator
        Source of the directions, one an example and projection.
    projections : int
        Over how many directions the first term is averaged.

    Notes
    -----
    The notes ask how random projections can help, "cause you still need to get the jacobian". One does not: v^T J v
    is v . grad(v . s), and v . s is one number, whose gradient a single backward pass gives (a vector-Jacobian
    product), whatever D is. With E v v^T = 1, its mean over v is tr(J), so the expectation equals that of `exact`.

    The sign before |s|^2 is a plus, as in `exact`, where the notes have a minus: with it the objective falls
    without limit as s grows. The directions are signs, +1 or -1, as in the paper's experiments: of
    all with E v v^T = 1 they have the least variance, as v_i^2 is 1 and not only on average.
    """
    points = points.detach().requires_grad_()
    scores = score(points)
    curvature = torch.zeros(len(points), dtype=scores.dtype, device=scores.device)
    for _ in range(projections):
        direction = normal_like(scores, generator).sign()
        (product,) = torch.autograd.grad((scores * direction).sum(), points, create_graph=True)
        curvature = curvature + (product * direction).flatten(1).sum(dim=1)
    return curvature / projections + half_squared_norm(scores)


def denoising(score: Score, points: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Compute |s(x~) + (x~ - x) / sigma^2|^2 / 2 at x~ = x + sigma z, which learns the score of data with that noise.

    Notes
    -----
    The target is grad log q(x~ | x) = -(x~ - x) / sigma^2 = -z / sigma: it points from the noisy point back to the
    clean one. The notes have the opposite sign, and their s would point away from the data.
    """
    noise = normal_like(points, generator)
    return half_squared_norm(score(points + sigma * noise) + noise / sigma)


def noise_conditional(
    score: Callable[[Tensor, Tensor], Tensor], points: Tensor, sigmas: Tensor, generator: torch.Generator
) -> Tensor:
    """Compute sigma^2 times `denoising`, each example at a random one of L levels: all scores are in one network.

    The mean over levels of NCSN's Eq. 6 with lambda(sigma) = sigma^2, which makes all levels count alike, estimated
    from one level an example as in the official code.

    Parameters
    ----------
    score : callable
        From points (B, ...) and indices of levels (B,) to scores.
    points : Tensor, (B, ...)
    sigmas : Tensor, (L,)
        On the points' device.
    generator : torch.Generator
    """
    level = integers(len(sigmas), len(points), generator, points.device)
    sigma = sigmas[level].view(-1, *[1] * (points.ndim - 1))
    noise = normal_like(points, generator)
    # sigma^2 |s + z / sigma|^2, multiplied out
    return half_squared_norm(sigma * score(points + sigma * noise, level) + noise)


def half_squared_norm(vectors: Tensor) -> Tensor:
    """Compute |v|^2 / 2 of every example, (B, ...) to (B,)."""
    return vectors.flatten(1).square().sum(dim=1) / 2
