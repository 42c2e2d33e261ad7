"""Langevin dynamics draws from the mixture whose score it is given, and annealing finds the weights of far modes."""

import pytest
import torch
from torch import Tensor

from fmtda.generative.langevin import annealed_langevin, fitting_step_size, geometric_levels, langevin


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def anywhere(count: int) -> Tensor:
    """Uniform in the square that holds both modes, as in the paper's section 3.2.2."""
    return 16 * torch.rand(count, 2, generator=generator(7)) - 8


@pytest.fixture
def far_modes(plane_mixture):
    return plane_mixture(distance=5.0, deviation=1.0, weights=(0.2, 0.8))


def test_plain_dynamics_finds_a_gaussian_from_far_away(plane_mixture):
    gaussian = plane_mixture(distance=0.0, deviation=0.7, weights=(0.5, 0.5))
    points = langevin(gaussian.score, anywhere(4000), 0.05, 300, generator())
    torch.testing.assert_close(points.mean(0), torch.zeros(2), atol=0.05, rtol=0)
    torch.testing.assert_close(points.T.cov(), 0.49 * torch.eye(2), atol=0.04, rtol=0)


def test_plain_dynamics_keeps_the_variance_and_does_not_end_in_the_mode(plane_mixture):
    gaussian = plane_mixture(distance=0.0, deviation=1.0, weights=(0.5, 0.5))
    points = langevin(gaussian.score, torch.zeros(20_000, 2), 0.8, 60, generator())
    assert points.var().item() == pytest.approx(1 / (1 - 0.8 / 4), rel=0.03)  # the docstring's fixed point


@pytest.fixture
def annealed(far_modes):
    sigmas = geometric_levels(10.0, 0.1, 10)
    return annealed_langevin(
        lambda at, level: far_modes.score(at, sigmas[level]), anywhere(2000), sigmas, 0.005, 100, generator()
    )


def test_annealed_dynamics_reproduces_means_covariances_and_weights(far_modes, annealed):
    right = annealed[:, 0] > 0
    assert right.float().mean().item() == pytest.approx(0.8, abs=0.03)
    for side, mode in ((1.0, annealed[right]), (-1.0, annealed[~right])):
        torch.testing.assert_close(mode.mean(0), torch.tensor([side * far_modes.distance, 0]), atol=0.15, rtol=0)
        torch.testing.assert_close(mode.T.cov(), torch.eye(2), atol=0.25, rtol=0)


def test_plain_dynamics_misses_the_weights_that_annealing_finds(far_modes):
    points = langevin(far_modes.score, anywhere(1000), 0.1, 500, generator())
    # every point stays on the side where it started
    assert (points[:, 0] > 0).float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_levels_are_geometric():
    assert geometric_levels(1.0, 0.01, 3) == pytest.approx([1.0, 0.1, 0.01])


@pytest.mark.parametrize("arguments", [(0.1, 1.0, 5), (1.0, 0.0, 5), (1.0, 0.1, 1)])
def test_what_is_no_falling_sequence_is_refused(arguments):
    with pytest.raises(ValueError, match="noise levels"):
        geometric_levels(*arguments)


@pytest.mark.parametrize("steps", [3, 10, 100])
def test_the_fitting_step_size_carries_one_level_s_variance_to_the_next(steps):
    sigmas = geometric_levels(1.0, 0.5, 2)
    step_size = fitting_step_size(sigmas, steps)
    start = sigmas[0] * torch.randn(20_000, 1, generator=generator())
    alpha = step_size  # the last level's
    points = langevin(lambda at: -at / sigmas[1] ** 2, start, alpha, steps, generator(1))
    assert points.std().item() == pytest.approx(sigmas[1], rel=0.25 if steps == 3 else 0.1)


def test_progress_counts_every_step():
    made = []
    annealed_langevin(lambda at, level: -at, torch.zeros(2, 2), [1.0, 0.5, 0.1], 1e-3, 4, generator(), made.append)
    assert sum(made) == 12
