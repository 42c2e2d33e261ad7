"""Draws: one an example, in their ranges, from the given generator alone."""

import torch

from fmtda.adaptation.random_draws import Draws


def draws(seed=0, count=2000):
    return Draws(torch.Generator().manual_seed(seed), count, torch.device("cpu"))


def test_uniform_draws_fill_their_range_and_broadcast_over_pictures():
    values = draws().uniform(-2, 3, channels=3)
    assert values.shape == (2000, 3, 1, 1)
    assert -2 <= values.min() < -1.99 and 2.99 < values.max() <= 3
    assert abs(values.mean() - 0.5) < 0.1


def test_normal_draws_have_unit_variance_and_the_given_shape():
    values = draws().normal(3, 5, 7)
    assert values.shape == (2000, 3, 5, 7)
    assert abs(values.mean()) < 0.01 and abs(values.std() - 1) < 0.01


def test_chances_and_indices_are_as_frequent_as_asked():
    draw = draws()
    assert abs(draw.chance(0.3).float().mean() - 0.3) < 0.04
    assert not draw.chance(0.0).any() and draw.chance(1.0).all()
    counts = draw.indices(4).bincount()
    assert len(counts) == 4 and (counts - 500).abs().max() < 100


def test_equal_generators_give_equal_draws_and_the_global_one_is_not_used():
    before = torch.get_rng_state()
    first, same, other = (draws(seed).uniform(0, 1) for seed in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
