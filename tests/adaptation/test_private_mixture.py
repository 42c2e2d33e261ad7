"""The noised mixture: equal to EM without noise, as sensitive as it says, near the truth with enough examples."""

import math

import pytest
import torch

from fmtda.adaptation.mixture import Mixture, StepwiseEM, fit
from fmtda.adaptation.privacy_noise import seeded_uniforms
from fmtda.adaptation.private_mixture import (
    QUANTILES_SENSITIVITY,
    STATISTICS_SENSITIVITY,
    fit_privately,
    noised_components,
    noised_quantiles,
)

DIMENSIONS = 16


def seeded(seed=0):
    return seeded_uniforms(torch.Generator().manual_seed(seed))


def clusters(examples, shift=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(4, DIMENSIONS, generator=torch.Generator().manual_seed(99))
    belongs = torch.randint(4, (examples,), generator=generator)
    return centres[belongs] + shift + torch.randn(examples, DIMENSIONS, generator=generator)


@pytest.fixture(scope="module")
def source_mixture():
    return fit(clusters(800), 4, 0)


def test_without_noise_and_cutting_it_is_a_step_of_em(source_mixture):
    features = clusters(300, 0.5, seed=1)
    components, counts = noised_components(source_mixture, features, 0.0, seeded(), radius=math.inf)
    em = StepwiseEM(source_mixture, features)
    em.update(features, step_size=1.0)
    torch.testing.assert_close(components.weights, em.weights)
    torch.testing.assert_close(components.means, em.means)
    torch.testing.assert_close(components.variances, em.variances)
    assert counts.sum().item() == pytest.approx(300)


class Recorder:
    """Uniform numbers of one value, whose normal one is 0: the sums come out without noise, but as if noised."""

    def __call__(self, count):
        return torch.full((count,), 0.5, dtype=torch.float64)


def statistics(source_mixture, features, noise=1e-9):
    """The three sums in the units in which they are noised, found again from what is made of them."""
    components, counts = noised_components(source_mixture, features, noise, Recorder())
    overall = source_mixture.overall_variance()
    scale = ((overall + overall.mean()) / 2).sqrt()
    radius = math.sqrt(DIMENSIONS)
    shift = (components.means - source_mixture.means.double()) / scale
    second = components.variances / scale.square() + shift.square()
    return torch.cat([counts, (counts[:, None] * torch.cat([shift, second], dim=1) / radius).flatten()])


def test_striking_out_any_example_moves_the_sums_by_the_sensitivity_at_most(source_mixture):
    features = clusters(60, seed=2)
    features[0] *= 1000
    features[1] = source_mixture.means[0]
    whole = statistics(source_mixture, features)
    moved = []
    for i in range(len(features)):
        left = torch.cat([features[:i], features[i + 1 :]])
        moved.append((whole - statistics(source_mixture, left)).norm().item())
    assert max(moved) <= STATISTICS_SENSITIVITY + 1e-6
    assert moved[0] == pytest.approx(STATISTICS_SENSITIVITY, rel=1e-2)  # the farthest one uses it up


def test_the_noise_of_the_counts_has_the_promised_standard_deviation(source_mixture):
    features = clusters(4000, seed=3)
    uniforms = seeded()
    exact = noised_components(source_mixture, features, 0.0, uniforms)[1]
    drawn = torch.stack([noised_components(source_mixture, features, 5.0, uniforms)[1] for _ in range(150)])
    assert (drawn - exact).std().item() == pytest.approx(5.0 * STATISTICS_SENSITIVITY, rel=0.12)


def test_the_noise_of_the_means_is_that_of_the_sums_over_the_counts(source_mixture):
    features = clusters(4000, seed=3)
    uniforms = seeded()
    exact = noised_components(source_mixture, features, 0.0, uniforms)[0].means
    drawn = torch.stack([noised_components(source_mixture, features, 2.0, uniforms)[0].means for _ in range(60)])
    overall = source_mixture.overall_variance()
    scale = ((overall + overall.mean()) / 2).sqrt()
    counts = noised_components(source_mixture, features, 0.0, uniforms)[1]
    expected = 2.0 * STATISTICS_SENSITIVITY * math.sqrt(DIMENSIONS) / counts[:, None] * scale
    assert ((drawn - exact) / expected).std().item() == pytest.approx(1, rel=0.08)


def test_with_overwhelming_noise_the_components_stay_the_sources(source_mixture):
    components, _ = noised_components(source_mixture, clusters(100, 1.0), 1e6, seeded())
    torch.testing.assert_close(components.means, source_mixture.means.double(), rtol=0, atol=1e-3)
    torch.testing.assert_close(components.variances, source_mixture.variances.double(), rtol=1e-2, atol=1e-3)


def test_the_quantiles_fall_in_with_those_of_the_examples(source_mixture):
    features = clusters(4000, seed=4)
    found = noised_quantiles(source_mixture, features, 0.0, 1.0, seeded())
    exact = source_mixture.log_likelihood(features).quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64))
    assert (found.diff() >= 0).all() and found.isfinite().all()
    spread = exact[2] - exact[0]
    assert abs(found[16] - exact[1]) < 0.2 * spread
    assert abs(found[3] - exact[0]) < 0.4 * spread and abs(found[29] - exact[2]) < 0.4 * spread


def test_the_quantiles_move_by_noise_over_the_sums_and_one_example_counts_little(source_mixture):
    features = clusters(200, seed=4)
    with_outlier = features.clone()
    with_outlier[0] = 1e4
    quiet = Recorder()
    first = noised_quantiles(source_mixture, features, 0.0, 1e-9, quiet)
    second = noised_quantiles(source_mixture, with_outlier, 0.0, 1e-9, quiet)
    assert abs(first[16] - second[16]) < 0.05 * abs(first[16])
    assert QUANTILES_SENSITIVITY == pytest.approx(math.hypot(1, 1))


@pytest.mark.parametrize("noise", [0.5, 4.0, 100.0])
@pytest.mark.parametrize("examples", [10, 60, 600])
def test_what_is_sent_is_a_mixture_at_any_noise(source_mixture, noise, examples):
    features = clusters(examples + examples // 4, 1.0, seed=5)
    mixture = fit_privately(source_mixture, features[:examples], features[examples:], noise, 5, seeded())
    Mixture.from_arrays(mixture.arrays())
    assert len(mixture.weights) <= max(1, examples // 20)
    typical = mixture.typicality(features)
    assert typical.isfinite().all()


def test_equal_seeds_give_equal_bits(source_mixture):
    features = clusters(200)
    first, second, other = (
        fit_privately(source_mixture, features[:160], features[160:], 1.0, 0, seeded(seed)).means for seed in (0, 0, 1)
    )
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_a_component_below_the_floor_by_the_noised_counts_is_left_out(source_mixture):
    nearest = source_mixture.means[0] + 0.1 * torch.randn(300, DIMENSIONS, generator=torch.Generator().manual_seed(6))
    few = source_mixture.means[1] + 0.1 * torch.randn(6, DIMENSIONS, generator=torch.Generator().manual_seed(7))
    features = torch.cat([nearest, few])
    held_out = source_mixture.means[0] + torch.randn(50, DIMENSIONS, generator=torch.Generator().manual_seed(8))
    assert len(fit_privately(source_mixture, features, held_out, 0.1, 0, seeded()).weights) == 4
    assert len(fit_privately(source_mixture, features, held_out, 0.1, 20, seeded()).weights) == 1
