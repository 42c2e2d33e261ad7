"""Counts what a client has given away so far: the (epsilon, delta) of all that it has sent, by Google's dp-accounting.

The guarantee is about one training example of a client. Two data sets are neighbours if one of them has a single
example struck out, an example that counts for nothing in every sum: *zero-out* neighbours, `REPLACE_SPECIAL` in the
library. The number of examples is the same in both, and so is public. What an observer may conclude from all uploads
together then differs by a factor of exp(epsilon) at most, but for a probability of delta.

Steps and rounds are composed as Renyi differential privacy, which holds too where later messages of the server depend
on earlier uploads. Sources: Mironov, "Renyi differential privacy", CSF 2017; Mironov, Talwar and Zhang, "Renyi
differential privacy of the sampled Gaussian mechanism", 2019; Canonne, Kamath and Steinke, "The discrete Gaussian for
differential privacy", NeurIPS 2020, for epsilon at a delta; Kairouz et al., "Practical and private (deep) learning
without sampling or shuffling", ICML 2021, for zero-out neighbours.

Our choice: the orders.
"""

import functools
from collections import Counter
from collections.abc import Iterable
from importlib.util import find_spec
from typing import NamedTuple

PACKAGE, EXTRA = "dp_accounting", "privacy"

ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 512)
"""The orders of the Renyi divergences; epsilon is the least over them, and each alone gives a valid one."""


class Release(NamedTuple):
    """Describes what one message of a client gives away.

    Attributes
    ----------
    steps : int
        Steps of DP-SGD on F_l; 0 where only the mixture is sent.
    sampling_rate : float
        The probability with which each of them takes an example.
    noise : float
        Noise multiplier of DP-SGD.
    mixture_noise : float
        Noise multiplier of the mixture, one Gaussian mechanism (`adaptation.private_mixture`).
    """

    steps: int
    sampling_rate: float
    noise: float
    mixture_noise: float


def is_installed() -> bool:
    """Say whether the library is there, without importing it."""
    return find_spec(PACKAGE) is not None


def epsilon(releases: Iterable[Release], delta: float) -> float:
    """Bound the epsilon of all these releases together from above; 0 without any, infinite without noise."""
    return _epsilon(frozenset(Counter(releases).items()), delta)


@functools.lru_cache(maxsize=64)
def _epsilon(counted: frozenset[tuple[Release, int]], delta: float) -> float:
    import dp_accounting  # seconds, which clients without noise need not pay

    accountant = dp_accounting.rdp.RdpAccountant(
        ORDERS, neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_SPECIAL
    )
    for release, count in sorted(counted):
        step = dp_accounting.PoissonSampledDpEvent(release.sampling_rate, dp_accounting.GaussianDpEvent(release.noise))
        if release.steps:
            accountant.compose(step, count * release.steps)
        accountant.compose(dp_accounting.GaussianDpEvent(release.mixture_noise), count)
    return float(accountant.get_epsilon(delta)) if counted else 0.0
