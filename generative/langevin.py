"""Samples by Langevin dynamics from a score alone, at one noise level or through falling ones.

Sources: NCSN is Song and Ermon, "Generative modeling by estimating gradients of the data distribution", NeurIPS 2019;
NCSNv2 is Song and Ermon, "Improved techniques for training score-based generative models", NeurIPS 2020.

Shapes: B points, then any shape of a point; L noise levels.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fmtda.generative.model import unreported
from fmtda.generative.noise import normal_like


def langevin(
    score: Callable[[Tensor], Tensor],
    start: Tensor,
    step_size: float,
    steps: int,
    generator: torch.Generator,
    advance: Callable[[int], None] = unreported,
) -> Tensor:
    """Make the step x <- x + alpha / 2 s(x) + sqrt(alpha) z many times.

    Parameters
    ----------
    score : callable
        From points (B, ...) to scores of the same shape.
    start : Tensor, (B, ...)
    step_size : float
        alpha.
    steps : int
    generator : torch.Generator
    advance : callable
        Called with 1 after each step.

    Returns
    -------
    Tensor, (B, ...)
        As alpha goes to 0 and alpha times `steps` to infinity, draws from the density whose score it is.

    Notes
    -----
    The notes ask why the points do not all end in the mode: the noise stays. A drift of alpha / 2 s alone would end
    there, but each step also adds variance alpha. For a Gaussian of variance v, s = -x / v, the variance after a
    step is (1 - alpha / 2v)^2 times that before plus alpha, whose fixed point is v / (1 - alpha / 4v): v itself as
    alpha goes to 0, and never 0.

    It balances separate modes only by crossing the empty space between them, which takes exponentially long; until
    then every point stays with the mode nearest its start, whatever the mode's weight.
    """
    points = start
    for _ in range(steps):
        noise = normal_like(points, generator)
        points = points + step_size / 2 * score(points) + math.sqrt(step_size) * noise
        advance(1)
    return points


def annealed_langevin(
    score: Callable[[Tensor, int], Tensor],
    start: Tensor,
    sigmas: list[float],
    step_size: float,
    steps: int,
    generator: torch.Generator,
    advance: Callable[[int], None] = unreported,
) -> Tensor:
    """Follow NCSN's Algorithm 1: Langevin dynamics from the largest noise level down, each from the last's points.

    Parameters
    ----------
    score : callable
        From points (B, ...) and the index of a level to scores.
    start : Tensor, (B, ...)
    sigmas : list of float, L
        Falling.
    step_size : float
        epsilon; at level i the step is alpha_i = epsilon sigma_i^2 / sigma_L^2.
    steps : int
        T, at every level.
    generator : torch.Generator
    advance : callable
        Called with 1 after each of the L T steps.
    """
    points = start
    for level, sigma in enumerate(sigmas):
        alpha = step_size * sigma**2 / sigmas[-1] ** 2

        def score_here(at: Tensor, level: int = level) -> Tensor:
            return score(at, level)

        points = langevin(score_here, points, alpha, steps, generator, advance)
    return points


def geometric_levels(largest: float, smallest: float, count: int) -> list[float]:
    """List `count` noise levels with one ratio between neighbours, falling.

    Raises
    ------
    ValueError
        If the levels do not fall or are not positive.
    """
    if not 0 < smallest < largest:
        raise ValueError(f"noise levels from {largest:g} to {smallest:g} must fall and be positive")
    if count < 2:
        raise ValueError(f"noise levels={count} must be at least 2")
    return [largest * (smallest / largest) ** (i / (count - 1)) for i in range(count)]


def fitting_step_size(sigmas: list[float], steps: int) -> float:
    """Find the epsilon with which `steps` steps a level carry the noise of one level to that of the next.

    NCSNv2's technique 4 for geometric levels: around a point of data, the variance after T steps at level i, started
    with that of the level before, should be sigma_i^2. With the contraction c = (1 - epsilon / (2 sigma_L^2))^2 of
    one step and gamma the ratio of levels, its ratio to sigma_i^2 is

        c^T (gamma^2 - r) + r,    r = (epsilon / sigma_L^2) / (1 - c)

    and epsilon is the one of a fine grid for which this is nearest to 1. (NCSNv2 writes alpha s + sqrt(2 alpha) z
    for a step: its epsilon is half of ours, which is NCSN's.)
    """
    ratio = (sigmas[0] / sigmas[-1]) ** (1 / (len(sigmas) - 1))
    relative = torch.linspace(0, 2, 100_001, dtype=torch.float64)[1:-1]  # epsilon / sigma_L^2
    contraction = (1 - relative / 2).square()
    settled = relative / (1 - contraction)
    reached = contraction**steps * (ratio**2 - settled) + settled
    return relative[(reached - 1).abs().argmin()].item() * sigmas[-1] ** 2
