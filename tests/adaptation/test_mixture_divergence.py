"""The divergence of mixtures: exact where there is a closed form, near a Monte-Carlo estimate where there is none."""

import math

import pytest
import torch

from fmtda.adaptation.mixture import QUANTILES, Mixture
from fmtda.adaptation.mixture_divergence import divergence


def mixture(weights, means, variances) -> Mixture:
    quantiles = torch.zeros(QUANTILES)
    return Mixture(*(torch.tensor(value, dtype=torch.float32) for value in (weights, means, variances)), quantiles)


def random_mixture(seed: int, components=3, dimensions=4, spread=1.5) -> Mixture:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(components, generator=generator) + 0.2
    means = spread * torch.randn(components, dimensions, generator=generator)
    variances = torch.rand(components, dimensions, generator=generator) + 0.3
    return Mixture(weights / weights.sum(), means, variances, torch.zeros(QUANTILES))


def sampled(f: Mixture, g: Mixture, draws=200_000) -> float:
    """Both directions of the Kullback-Leibler divergence by Monte Carlo, with torch's own densities."""

    def density(m):
        components = torch.distributions.Independent(torch.distributions.Normal(m.means, m.variances.sqrt()), 1)
        return torch.distributions.MixtureSameFamily(torch.distributions.Categorical(m.weights), components)

    torch.manual_seed(0)
    first, second = density(f), density(g)
    x, y = first.sample((draws,)), second.sample((draws,))
    forth, back = first.log_prob(x) - second.log_prob(x), second.log_prob(y) - first.log_prob(y)
    return (forth.mean() + back.mean()).item()


def test_single_gaussians_by_hand():
    f, g = mixture([1.0], [[0.0]], [[1.0]]), mixture([1.0], [[2.0]], [[4.0]])
    forth = 0.5 * (math.log(4) + (1 + 4) / 4 - 1)
    back = 0.5 * (-math.log(4) + (4 + 4) / 1 - 1)
    assert divergence(f, g) == pytest.approx(forth + back, rel=1e-6)


@pytest.mark.parametrize("dimensions", [1, 7, 128])
def test_single_gaussians_are_torchs_closed_form(dimensions):
    f, g = (random_mixture(seed, 1, dimensions) for seed in (1, 2))
    first, second = (torch.distributions.Normal(m.means[0].double(), m.variances[0].double().sqrt()) for m in (f, g))
    kl = torch.distributions.kl_divergence
    assert divergence(f, g) == pytest.approx((kl(first, second) + kl(second, first)).sum().item(), rel=1e-9)


def test_mixtures_of_the_same_component_are_that_component():
    one, other = mixture([1.0], [[0.0, 1.0]], [[1.0, 2.0]]), mixture([1.0], [[1.0, 1.0]], [[2.0, 2.0]])
    twice = mixture([0.3, 0.7], [[0.0, 1.0]] * 2, [[1.0, 2.0]] * 2)
    assert divergence(twice, other) == pytest.approx(divergence(one, other), rel=1e-6)
    assert divergence(twice, one) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_mixtures_are_near_a_large_monte_carlo_estimate(seed):
    f, g = random_mixture(seed), random_mixture(seed + 50)
    assert divergence(f, g) == pytest.approx(sampled(f, g), rel=0.15)


def test_the_order_of_many_is_that_of_the_monte_carlo_estimates():
    f = random_mixture(0)
    others = []
    for shift in (0.3, 1.0, 2.0, 4.0):
        others.append(
            Mixture(f.weights, f.means + shift * torch.tensor([1.0, -1.0, 0.5, 0.0]), f.variances, f.quantiles)
        )
    ours, theirs = [divergence(f, g) for g in others], [sampled(f, g, 20_000) for g in others]
    assert sorted(ours) == ours and sorted(theirs) == theirs


@pytest.mark.parametrize("components", [(1, 1), (3, 2), (10, 1)])
def test_is_symmetric_and_zero_for_equal_mixtures(components):
    f, g = random_mixture(3, components[0], 128), random_mixture(4, components[1], 128)
    assert divergence(f, g) == pytest.approx(divergence(g, f), rel=1e-12)
    assert divergence(f, g) > 0
    assert divergence(f, f) == 0


def test_the_order_of_components_and_an_absent_one_count_for_nothing():
    f, g = random_mixture(5), random_mixture(6)
    turned = Mixture(f.weights.flip(0), f.means.flip(0), f.variances.flip(0), f.quantiles)
    weights = torch.cat([f.weights, torch.zeros(1)])
    longer = Mixture(weights, torch.cat([f.means, g.means[:1]]), torch.cat([f.variances, g.variances[:1]]), f.quantiles)
    for same in (turned, longer):
        assert divergence(same, g) == pytest.approx(divergence(f, g), rel=1e-9)


def test_other_features_are_refused():
    with pytest.raises(ValueError, match="over 4 and 5 dimensions"):
        divergence(random_mixture(0), random_mixture(0, dimensions=5))
