"""Mixtures agree with scikit-learn's, and their weights tell a domain's own examples from strange ones."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from fmtda.adaptation.mixture import (
    QUANTILES,
    VARIANCE_FLOOR,
    Mixture,
    StackedMixtures,
    StepwiseEM,
    components_for,
    fit,
    hold_out,
)

DIMENSIONS = 16
CENTRES = 2 * torch.randn(10, DIMENSIONS, generator=torch.Generator().manual_seed(0))


def domain(examples: int, seed: int, shift: float = 0.0) -> Tensor:
    """Features of a domain with ten classes."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(10, (examples,), generator=generator)
    return CENTRES[classes] + torch.randn(examples, DIMENSIONS, generator=generator) + shift


@pytest.fixture(scope="module")
def source_mixture() -> Mixture:
    return fit(domain(2000, seed=1), components=10, seed=0)


def same(a: Mixture, b: Mixture) -> bool:
    return all(np.array_equal(a.arrays()[name], b.arrays()[name]) for name in a.arrays())


@pytest.fixture(scope="module")
def model(source_mixture) -> GaussianMixture:
    return as_sklearn(source_mixture.weights, source_mixture.means, source_mixture.variances)


def as_sklearn(weights: Tensor, means: Tensor, variances: Tensor, **settings) -> GaussianMixture:
    """scikit-learn's model that stands, or starts, at the given parameters."""
    weights, means, variances = (t.double().numpy() for t in (weights, means, variances))
    model = GaussianMixture(
        len(weights),
        covariance_type="diag",
        weights_init=weights / weights.sum(),
        means_init=means,
        precisions_init=1 / variances,
        **settings,
    )
    model.weights_, model.means_, model.covariances_ = weights / weights.sum(), means, variances
    model.precisions_cholesky_ = variances**-0.5
    return model


class TestAgreementWithScikitLearn:
    @pytest.mark.parametrize("shift", [0.0, 30.0])
    def test_log_likelihood(self, source_mixture, model, shift):
        features = domain(300, seed=2, shift=shift)
        ours = source_mixture.log_likelihood(features).numpy()
        np.testing.assert_allclose(ours, model.score_samples(features.double().numpy()), rtol=1e-7, atol=1e-5)

    def test_responsibilities(self, source_mixture, model):
        features = domain(300, seed=2)
        ours = source_mixture.responsibilities(features).numpy()
        np.testing.assert_allclose(ours, model.predict_proba(features.double().numpy()), atol=1e-6)

    def test_overall_variance(self, source_mixture):
        means, weights = source_mixture.means.double(), source_mixture.weights.double()
        components = np.random.default_rng(0).choice(10, 50_000, p=(weights / weights.sum()).numpy())
        noise = np.random.default_rng(1).standard_normal((50_000, DIMENSIONS))
        drawn = means.numpy()[components] + noise * source_mixture.variances.numpy()[components] ** 0.5
        variance = drawn.var(axis=0)
        np.testing.assert_allclose(source_mixture.overall_variance().numpy(), variance, rtol=0.03)

    def test_one_component_is_fitted_as_scikit_learn_does(self):
        features = domain(8, seed=3)  # too few to hold any out
        floor = 1e-2 * features.var(dim=0, correction=0).mean().item()
        model = GaussianMixture(1, covariance_type="diag", reg_covar=floor).fit(features.double().numpy())
        mixture = fit(features, components=10, seed=0)
        np.testing.assert_allclose(mixture.means.numpy(), model.means_, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(mixture.variances.numpy(), model.covariances_, rtol=1e-5)

    def test_each_full_stepwise_update_is_one_iteration_of_em(self, source_mixture):
        features = domain(400, seed=4, shift=0.5)
        em = StepwiseEM(source_mixture, features)
        for _ in range(5):
            model = as_sklearn(em.weights, em.means, em.variances, max_iter=1, reg_covar=0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(features.double().numpy())
            em.update(features, step_size=1.0)
            np.testing.assert_allclose(em.weights.numpy(), model.weights_, atol=1e-6)
            np.testing.assert_allclose(em.means.numpy(), model.means_, atol=1e-6)
            np.testing.assert_allclose(em.variances.numpy(), model.covariances_, atol=1e-6)


class TestTypicality:
    @pytest.mark.parametrize(("examples", "tolerance"), [(2000, 0.05), (400, 0.1), (60, 0.2)])
    def test_is_uniform_on_new_examples_of_the_same_domain(self, examples, tolerance):
        mixture = fit(domain(examples, seed=5), components=10, seed=0)
        typicality = mixture.typicality(domain(2000, seed=6))
        assert typicality.mean().item() == pytest.approx(0.5, abs=tolerance)
        levels = torch.tensor([0.25, 0.75])
        assert torch.allclose(typicality.quantile(levels), levels, atol=1.5 * tolerance)

    def test_is_zero_far_away_and_one_at_the_likeliest_point(self, source_mixture):
        assert source_mixture.typicality(domain(200, seed=7, shift=20.0)).max() == 0
        assert source_mixture.typicality(source_mixture.means).min() > 0.99

    def test_falls_with_the_shift(self, source_mixture):
        means = [source_mixture.typicality(domain(500, seed=8, shift=s)).mean() for s in (0.0, 0.3, 0.6, 1.2)]
        assert means == sorted(means, reverse=True)
        assert means[0] > 0.4 and means[-1] < 0.1

    def test_interpolates_between_quantiles(self):
        mixture = Mixture(
            weights=torch.ones(1),
            means=torch.zeros(1, 1),
            variances=torch.ones(1, 1),
            quantiles=torch.linspace(-32, 0, QUANTILES),
        )
        features = torch.tensor([[0.0], [1.0], [4.0], [7.0], [9.0]])
        expected = [(32 + v) / 32 for v in mixture.log_likelihood(features).tolist()[:4]] + [0.0]
        assert mixture.typicality(features).tolist() == pytest.approx(expected)

    def test_carries_no_gradient(self, source_mixture):
        features = domain(5, seed=9).requires_grad_()
        assert not source_mixture.typicality(features).requires_grad
        assert source_mixture.log_likelihood(features).requires_grad


class TestFit:
    def test_equal_seeds_give_equal_bits_and_leave_global_random_states_alone(self):
        features = domain(300, seed=10)
        state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
        assert same(fit(features, 5, seed=3), fit(features, 5, seed=3))
        assert not same(fit(features, 5, seed=3), fit(features, 5, seed=4))
        assert torch.equal(torch.get_rng_state(), state)
        assert np.array_equal(np.random.get_state()[1], numpy_state)

    def test_takes_seeds_beyond_32_bits(self):
        assert len(fit(domain(60, seed=10), 2, seed=2**100 + 1).weights) == 2

    @pytest.mark.parametrize(("examples", "components"), [(1, 1), (2, 1), (15, 1), (39, 1), (50, 2), (2000, 10)])
    def test_few_examples_get_few_components(self, examples, components):
        mixture = fit(domain(examples, seed=11), components=10, seed=0)
        assert len(mixture.weights) == components
        Mixture.from_arrays(mixture.arrays())  # finite, positive, sorted
        assert mixture.typicality(domain(100, seed=12)).isfinite().all()

    @pytest.mark.parametrize("seed", range(50, 60))  # float32 must not round its quantiles above it
    def test_one_example_is_typical_of_itself_and_nothing_else_is(self, seed):
        only = domain(1, seed)
        mixture = fit(only, components=10, seed=0)
        assert mixture.typicality(only).item() == 1
        assert StackedMixtures.from_mixtures([mixture]).typicality(only).item() == 1
        assert not mixture.typicality(domain(100, seed=14)).any()

    @pytest.mark.filterwarnings("error")
    def test_equal_examples_give_a_mixture(self):
        mixture = fit(torch.ones(200, 4), components=5, seed=0)
        Mixture.from_arrays(mixture.arrays())
        assert mixture.typicality(torch.zeros(1, 4)).item() == 0

    def test_variances_keep_a_floor_relative_to_that_of_all_features(self):
        features = 1e-3 * domain(200, seed=15)
        features[::2] += 4.0
        mixture = fit(features, components=2, seed=0)
        floor = VARIANCE_FLOOR * features.double().var(dim=0, correction=0).mean()
        assert mixture.variances.min() == pytest.approx(floor.item(), rel=1e-3)

    def test_a_feature_silent_on_the_source_does_not_decide_alone(self):
        source, target = domain(1000, seed=16), domain(500, seed=17)
        source[:, 0] = 0
        target[:, 0] = 0.1
        assert fit(source, components=10, seed=0).typicality(target).mean() > 0.3

    @pytest.mark.parametrize(
        ("shape", "components", "message"),
        [((0, 4), 2, r"\(0, 4\)"), ((5,), 2, r"\(5,\)"), ((5, 4), 0, "components=0 must be at least 1")],
    )
    def test_refuses_what_it_cannot_fit(self, shape, components, message):
        with pytest.raises(ValueError, match=message):
            fit(torch.zeros(shape), components, seed=0)

    def test_components_for(self):
        assert [components_for(n, wanted=10) for n in (0, 1, 39, 40, 199, 200, 5000)] == [
            1,
            1,
            1,
            2,
            9,
            10,
            10,
        ]

    @pytest.mark.parametrize(("examples", "held_out"), [(10, 2), (99, 20), (1000, 200)])
    def test_hold_out_takes_a_fifth(self, examples, held_out):
        fitted, kept = hold_out(examples, seed=0)
        assert len(kept) == held_out
        assert sorted([*fitted, *kept]) == list(range(examples))

    def test_hold_out_takes_none_of_very_few(self):
        assert [part.tolist() for part in hold_out(3, seed=0)] == [[0, 1, 2]] * 2


class TestStepwiseEM:
    @staticmethod
    def follow(source_mixture: Mixture, features: Tensor, updates: int = 100, seed: int = 0) -> Mixture:
        fitted, held_out = hold_out(len(features), seed)
        em = StepwiseEM(source_mixture, features[fitted])
        generator = np.random.default_rng(seed)
        for _ in range(updates):
            em.update(features[generator.choice(fitted, min(64, len(fitted)), replace=False)])
        return em.finish(features[held_out])

    def test_starts_as_the_source_mixture(self, source_mixture):
        features = domain(400, seed=20)
        start = StepwiseEM(source_mixture, features).finish(features)
        for name in ("means", "variances"):
            assert torch.equal(getattr(start, name), getattr(source_mixture, name))
        torch.testing.assert_close(start.weights, source_mixture.weights)

    def test_a_step_of_size_zero_changes_nothing(self, source_mixture):
        features = domain(400, seed=20)
        em = StepwiseEM(source_mixture, features)
        before = em.means.clone(), em.variances.clone()
        em.update(features, step_size=0.0)
        torch.testing.assert_close((em.means, em.variances), before, rtol=1e-12, atol=1e-12)

    def test_moves_to_the_client(self, source_mixture):
        client, new = domain(400, seed=21, shift=1.0), domain(2000, seed=22, shift=1.0)
        target_mixture = self.follow(source_mixture, client)
        gain = target_mixture.log_likelihood(new).mean() - source_mixture.log_likelihood(new).mean()
        assert gain > 3
        assert target_mixture.typicality(new).mean().item() == pytest.approx(0.5, abs=0.1)
        assert source_mixture.typicality(new).mean() < 0.1

    def test_default_step_sizes_fall_as_documented(self, source_mixture):
        features = domain(400, seed=23)
        default, explicit = StepwiseEM(source_mixture, features), StepwiseEM(source_mixture, features)
        for t in range(4):
            default.update(features)
            explicit.update(features, step_size=(t + 2) ** -0.7)
        assert torch.equal(default.means, explicit.means)

    def test_few_examples_keep_the_most_responsible_components(self, source_mixture):
        chosen = source_mixture.means[[3, 7]]
        features = chosen.repeat(20, 1) + 0.1 * domain(40, seed=24)
        em = StepwiseEM(source_mixture, features)
        assert torch.equal(em.means.float(), chosen)
        assert em.weights.sum().item() == pytest.approx(1)

    @pytest.mark.parametrize("examples", [1, 3, 15])
    def test_few_examples_give_a_usable_mixture(self, source_mixture, examples):
        mixture = self.follow(source_mixture, domain(examples, seed=25))
        assert len(mixture.weights) == 1
        Mixture.from_arrays(mixture.arrays())
        floor = 1e-2 * source_mixture.overall_variance().mean().item()
        assert mixture.variances.min().item() >= floor * (1 - 1e-6)

    def test_mean_typicality_is_calibrated_for_fifteen_examples(self, source_mixture):
        new = domain(500, seed=26)
        means = [self.follow(source_mixture, domain(15, seed)).typicality(new).mean() for seed in range(30, 50)]
        assert 0.35 < torch.stack(means).mean() < 0.65

    def test_a_component_that_loses_all_examples_stays_harmless(self, source_mixture):
        features = domain(400, seed=27)
        lonely = Mixture(
            weights=torch.tensor([0.5, 0.5]),
            means=torch.stack([torch.zeros(DIMENSIONS), torch.full((DIMENSIONS,), 1e3)]),
            variances=torch.ones(2, DIMENSIONS),
            quantiles=torch.zeros(QUANTILES),
        )
        em = StepwiseEM(lonely, features)
        for _ in range(3):
            em.update(features, step_size=1.0)
        Mixture.from_arrays(em.finish(features).arrays())
        assert em.weights[0].item() == pytest.approx(1)

    def test_repeats_to_the_bit_and_leaves_its_source_alone(self, source_mixture):
        before = {name: array.copy() for name, array in source_mixture.arrays().items()}
        client = domain(200, seed=28)
        assert same(self.follow(source_mixture, client), self.follow(source_mixture, client))
        assert all(np.array_equal(source_mixture.arrays()[name], before[name]) for name in before)


class TestStackedMixtures:
    def test_equals_the_single_mixtures(self, source_mixture):
        mixtures = [fit(domain(n, seed=n), components=10, seed=0) for n in (400, 15, 100, 1)] + [source_mixture]
        assert len({len(mixture.weights) for mixture in mixtures}) > 2
        features = torch.cat([domain(100, seed=41), domain(50, seed=42, shift=0.5), domain(20, seed=43, shift=1e3)])
        stacked = StackedMixtures.from_mixtures(mixtures).typicality(features)
        assert stacked.shape == (5, 170)
        torch.testing.assert_close(stacked, torch.stack([m.typicality(features) for m in mixtures]), atol=1e-6, rtol=0)

    def test_absent_components_stay_absent_however_far_the_features(self, source_mixture):
        one = Mixture(
            weights=torch.ones(1),
            means=torch.zeros(1, DIMENSIONS),
            variances=torch.full((1, DIMENSIONS), 0.01),
            quantiles=torch.linspace(-1e6, 0, QUANTILES),
        )
        features = domain(20, seed=45, shift=30.0)
        typicality = one.typicality(features)
        assert 0 < typicality.min() < typicality.max() < 0.9
        stacked = StackedMixtures.from_mixtures([one, source_mixture]).typicality(features)
        torch.testing.assert_close(stacked[0], typicality, atol=1e-6, rtol=0)

    def test_works_for_a_federation_of_one(self, source_mixture):
        features = domain(64, seed=44)
        stacked = StackedMixtures.from_mixtures([source_mixture]).typicality(features)
        torch.testing.assert_close(stacked[0], source_mixture.typicality(features), atol=1e-6, rtol=0)

    def test_refuses_none_and_different_dimensions(self, source_mixture):
        with pytest.raises(ValueError, match="at least one"):
            StackedMixtures.from_mixtures([])
        with pytest.raises(ValueError, match=r"\[3, 16\]"):
            StackedMixtures.from_mixtures([source_mixture, fit(torch.zeros(1, 3), 1, seed=0)])


class TestArrays:
    def test_round_trip_to_the_bit(self, source_mixture):
        arrays = source_mixture.arrays()
        assert {name: (array.dtype, array.shape) for name, array in arrays.items()} == {
            "weights": (np.float32, (10,)),
            "means": (np.float32, (10, DIMENSIONS)),
            "variances": (np.float32, (10, DIMENSIONS)),
            "quantiles": (np.float32, (QUANTILES,)),
        }
        assert same(Mixture.from_arrays(arrays), source_mixture)
        assert same(source_mixture.to("cpu"), source_mixture)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("weights", np.full(9, 1 / 9), r"weights have shape \(9,\), expected \(10,\)"),
            ("weights", np.full(10, 0.2), "sum 2"),
            ("weights", np.array([-1.0, 2.0] + [0.0] * 8), "minimum -1"),
            ("means", np.zeros(10), r"means have shape \(10,\)"),
            ("means", np.zeros((0, DIMENSIONS)), r"means have shape \(0, 16\)"),
            ("means", np.full((10, DIMENSIONS), np.nan), "means hold values that are not finite"),
            ("variances", np.ones((10, 3)), r"\(10, 3\), expected \(10, 16\)"),
            ("variances", np.zeros((10, DIMENSIONS)), "variances have minimum 0"),
            ("quantiles", np.zeros(5), r"\(5,\), expected \(33,\)"),
            ("quantiles", np.arange(33.0)[::-1].copy(), "quantiles decrease"),
        ],
    )
    def test_refuses_what_is_no_mixture(self, source_mixture, name, value, message):
        with pytest.raises(ValueError, match=message):
            Mixture.from_arrays(source_mixture.arrays() | {name: value})

    def test_refuses_missing_and_superfluous_arrays(self, source_mixture):
        arrays = source_mixture.arrays()
        with pytest.raises(ValueError, match="labels"):
            Mixture.from_arrays(arrays | {"labels": np.zeros(3)})
        del arrays["means"]
        with pytest.raises(ValueError, match="expected"):
            Mixture.from_arrays(arrays)

    def test_features_of_another_network_are_refused(self, source_mixture):
        with pytest.raises(ValueError, match=r"\(5, 8\), expected \(N, 16\)"):
            source_mixture.typicality(torch.zeros(5, 8))
