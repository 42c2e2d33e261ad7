"""Epsilon against closed forms that the library has no part in."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import comb, logsumexp
from scipy.stats import norm

from fmtda.adaptation.privacy_account import Release, epsilon

DELTA = 1e-5


def mixture_alone(noise):
    return Release(0, 1.0, 0.0, noise)


def analytic_gaussian_epsilon(noise, delta):
    """The smallest epsilon of a Gaussian mechanism: Balle and Wang, ICML 2018, theorem 8, solved for epsilon."""

    def excess(eps):
        a, b = 1 / (2 * noise) - eps * noise, -1 / (2 * noise) - eps * noise
        return norm.cdf(a) - math.exp(eps) * norm.cdf(b) - delta

    return brentq(excess, 0, 200)


def from_renyi(divergence, delta):
    """Mironov 2017, proposition 3: a looser way from Renyi divergences of whole orders to an epsilon."""
    return min(divergence(order) + math.log(1 / delta) / (order - 1) for order in range(2, 65))


def sampled_gaussian(noise, rate, steps):
    """Mironov, Talwar and Zhang 2019, section 3.3: the divergence of the sampled Gaussian at a whole order."""

    def divergence(order):
        k = np.arange(order + 1)
        terms = np.log(comb(order, k)) + (order - k) * np.log1p(-rate) + k * np.log(rate) + k * (k - 1) / (2 * noise**2)
        return steps * logsumexp(terms) / (order - 1)

    return divergence


@pytest.mark.parametrize("noise", [1.0, 3.0, 8.0])
def test_the_mixture_alone_lies_between_the_exact_epsilon_and_the_simple_bound(noise):
    found = epsilon([mixture_alone(noise)], DELTA)
    assert analytic_gaussian_epsilon(noise, DELTA) < found
    assert found <= from_renyi(lambda order: order / (2 * noise**2), DELTA)
    assert found == pytest.approx(analytic_gaussian_epsilon(noise, DELTA), rel=0.15)


def test_rounds_of_gaussians_add_up_as_one_with_less_noise():
    assert epsilon([mixture_alone(6.0)] * 9, DELTA) == pytest.approx(epsilon([mixture_alone(2.0)], DELTA), rel=1e-9)


@pytest.mark.parametrize(("noise", "rate", "steps"), [(1.0, 0.1, 40), (2.0, 0.05, 400)])
def test_dp_sgd_is_never_above_the_bound_from_the_published_divergences(noise, rate, steps):
    found = epsilon([Release(steps, rate, noise, 1e6)], DELTA)
    simple = from_renyi(sampled_gaussian(noise, rate, steps), DELTA)
    assert 0.7 * simple < found <= simple


def test_a_known_value():
    """Abadi et al. 2016, section 5.2: q = 0.01, sigma = 4, 10,000 steps, delta = 1e-5 give epsilon = 1.26."""
    assert epsilon([Release(10_000, 0.01, 4.0, 1e6)], DELTA) == pytest.approx(1.26, abs=0.3)
    assert epsilon([Release(10_000, 0.01, 4.0, 1e6)], DELTA) < 1.27


def test_nothing_sent_is_nothing_given_away_and_more_noise_gives_away_less():
    assert epsilon([], DELTA) == 0
    weak, strong = (epsilon([Release(40, 0.1, noise, 4 * noise)] * 3, DELTA) for noise in (0.7, 2.0))
    assert strong < weak < math.inf


def test_without_noise_epsilon_is_infinite():
    assert epsilon([mixture_alone(0.0)], DELTA) == math.inf
