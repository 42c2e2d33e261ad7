"""On a mixture of two Gaussians in the plane, whose score is known, every objective learns it."""

import pytest
import torch
from torch import Tensor, nn

from fmtda.generative.score_matching import denoising, exact, half_squared_norm, noise_conditional, sliced

SIGMAS = torch.tensor([1.5, 0.6])


class PlaneScore(nn.Module):
    """A small network from points (B, 2), and noise levels (B,) or none, to scores (B, 2)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2))

    def forward(self, points: Tensor, level: Tensor | None = None) -> Tensor:
        level = torch.zeros(len(points)) if level is None else level
        return self.layers(torch.cat([points, level[:, None].to(points.dtype)], dim=1))


@pytest.fixture
def mixture(plane_mixture):
    return plane_mixture(distance=1.5, deviation=0.7, weights=(0.3, 0.7))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(objective, mixture, steps: int = 600) -> PlaneScore:
    """A network after Adam's descent of `objective(network, points, generator)`."""
    network, draws = PlaneScore(), generator()
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        loss = objective(network, mixture.draw(256, draws), draws).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rate.step()
    return network


def share_missed(learned: Tensor, true: Tensor) -> float:
    """The squared error as a share of the true score's mean square: 0 is perfect, 1 as bad as no score at all."""
    return ((learned - true).square().sum() / true.square().sum()).item()


@pytest.mark.parametrize(
    "objective, sigma",
    [
        (lambda network, points, draws: exact(network, points), 0.0),
        (lambda network, points, draws: sliced(network, points, draws), 0.0),
        (lambda network, points, draws: denoising(network, points, 0.5, draws), 0.5),
    ],
    ids=["exact", "sliced", "denoising"],
)
def test_an_objective_learns_the_score_of_the_data(objective, sigma, mixture):
    network = trained(objective, mixture)
    points = mixture.draw(2000, generator(1)) + sigma * torch.randn(2000, 2, generator=generator(2))
    assert share_missed(network(points), mixture.score(points, sigma)) < 0.05


def test_the_noise_conditional_objective_learns_the_scores_of_all_levels(mixture):
    network = trained(lambda network, points, draws: noise_conditional(network, points, SIGMAS, draws), mixture)
    for level, sigma in enumerate(SIGMAS.tolist()):
        points = mixture.draw(2000, generator(1)) + sigma * torch.randn(2000, 2, generator=generator(2))
        learned = network(points, torch.full((2000,), level))
        assert share_missed(learned, mixture.score(points, sigma)) < 0.07


@pytest.mark.parametrize("lower", [-1, 1])
def test_the_true_score_has_the_least_exact_and_denoising_objective(lower, mixture):
    # with a sign of the notes turned, the least would lie elsewhere, or nowhere
    points = mixture.draw(4000, generator())
    noisy = {"denoising": 0.5, "exact": 0.0}
    for name, sigma in noisy.items():

        def objective(factor: float, name=name, sigma=sigma) -> float:
            def score(at: Tensor) -> Tensor:
                return factor * closed_form(mixture, at, sigma)

            losses = exact(score, points) if name == "exact" else denoising(score, points, sigma, generator(1))
            return losses.mean().item()

        assert objective(1.0) < objective(1.0 + 0.15 * lower)


def closed_form(mixture, points: Tensor, sigma: float) -> Tensor:
    """The mixture's score as a differentiable function of the points."""
    variance = mixture.deviation**2 + sigma**2
    logit = 2 * mixture.distance * points[:, 0] / variance + torch.tensor(mixture.weights[1] / mixture.weights[0]).log()
    pull = mixture.distance * torch.tanh(logit / 2)
    return (torch.stack([pull, torch.zeros_like(pull)], dim=1) - points) / variance


def test_the_sliced_objective_has_the_exact_one_as_its_mean():
    network, points = PlaneScore().double(), torch.randn(3, 2, generator=generator(), dtype=torch.float64)
    many = sliced(network, points, generator(), projections=4000)
    torch.testing.assert_close(many, exact(network, points), atol=0.02, rtol=0)
    single = sliced(network, points, generator())
    assert (single - exact(network, points)).abs().max() > 0.01  # one projection is an estimate only


def test_the_sliced_gradient_has_the_exact_one_as_its_mean():
    network, points = PlaneScore().double(), torch.randn(3, 2, generator=generator(), dtype=torch.float64)

    def gradient(losses: Tensor) -> Tensor:
        return torch.cat([part.flatten() for part in torch.autograd.grad(losses.mean(), list(network.parameters()))])

    expected = gradient(exact(network, points))
    many = gradient(sliced(network, points, generator(), projections=1500))
    assert torch.cosine_similarity(many, expected, dim=0) > 0.998
    assert many.norm().item() == pytest.approx(expected.norm().item(), rel=0.03)


def test_a_linear_score_by_hand():
    matrix = torch.tensor([[-2.0, 1.0, 0.0], [4.0, -3.0, 0.0], [0.0, 5.0, -1.0]])
    points = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    expected = torch.tensor([-6 + 20 / 2, -6 + (1 + 9 + 16) / 2])  # trace + |matrix x|^2 / 2
    torch.testing.assert_close(exact(lambda at: at @ matrix.T, points), expected)


def test_the_exact_objective_takes_the_trace_of_torch_s_jacobian():
    network, points = PlaneScore(), torch.randn(5, 2, generator=generator())
    jacobians = torch.func.vmap(torch.func.jacrev(lambda point: network(point[None])[0]))(points)
    traces = jacobians.diagonal(dim1=1, dim2=2).sum(dim=1)
    torch.testing.assert_close(exact(network, points) - half_squared_norm(network(points)), traces)


def test_the_sliced_objective_makes_one_backward_pass_and_the_exact_one_a_pass_a_dimension(monkeypatch):
    passes = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *given, **named: passes.append(1) or grad(*given, **named))
    points = torch.randn(4, 3, 5, 5, generator=generator())
    sliced(torch.tanh, points, generator())
    assert len(passes) == 1
    exact(torch.tanh, points)
    assert len(passes) == 1 + 75


def test_the_conditional_objective_weighs_denoising_by_the_squared_level(mixture):
    points, network = mixture.draw(4000, generator()), PlaneScore()
    sigma = 0.6
    one_level = noise_conditional(network, points, torch.tensor([sigma]), generator(1)).mean()
    expected = sigma**2 * denoising(lambda at: network(at, torch.zeros(len(at))), points, sigma, generator(2)).mean()
    torch.testing.assert_close(one_level, expected, rtol=0.05, atol=0)
