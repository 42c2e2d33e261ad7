"""The nearest known domains of a new one, and the blend of their classifiers."""

import math

import pytest
import torch
from torch import nn

from fmtda.adaptation.mixture import QUANTILES, Mixture
from fmtda.adaptation.nearest_domains import NEIGHBOURS, blend, nearest


def at(place: float, dimensions: int = 2) -> Mixture:
    """A round Gaussian; two of them at a distance d diverge by d^2 in each dimension."""
    one = torch.ones(1, dimensions)
    return Mixture(torch.ones(1), place * one, one, torch.zeros(QUANTILES))


def test_the_nearest_come_first_with_weights_by_how_many_times_as_far_they_are():
    known = {"far/0000": at(9.0), "near/0000": at(1.0), "mid/0000": at(-2.0), "next/0000": at(3.0)}
    found = nearest(at(0.0), known)
    assert list(found) == ["near/0000", "mid/0000", "next/0000"]
    assert len(found) == NEIGHBOURS
    assert [each.divergence for each in found.values()] == pytest.approx([2, 8, 18])
    raw = [math.exp(-1), math.exp(-4), math.exp(-9)]
    assert [each.weight for each in found.values()] == pytest.approx([value / sum(raw) for value in raw])


def test_weights_depend_on_no_unit():
    two = [{"a/0000": at(1.0, d), "b/0000": at(1.5, d)} for d in (1, 128)]
    weights = [
        [each.weight for each in nearest(at(0.0, d), known).values()] for d, known in zip((1, 128), two, strict=True)
    ]
    assert weights[0] == pytest.approx(weights[1])
    assert weights[0][1] > 0.1


def test_an_equal_domain_takes_all_of_the_weight_and_equal_ones_share_it():
    found = nearest(at(0.0), {"twin/0000": at(0.0), "other/0000": at(1.0)})
    assert [each.weight for each in found.values()] == [1.0, 0.0]
    found = nearest(at(0.0), {"b/0000": at(0.0), "a/0000": at(0.0), "other/0000": at(1.0)})
    assert list(found) == ["a/0000", "b/0000", "other/0000"]
    assert [each.weight for each in found.values()] == [0.5, 0.5, 0.0]


def test_one_known_domain_is_all_there_is_and_none_is_nothing():
    (only,) = nearest(at(0.0), {"a/0000": at(5.0)}).values()
    assert only.weight == 1.0
    assert nearest(at(0.0), {}) == {}


def test_a_blend_of_linear_classifiers_gives_the_blend_of_their_logits():
    torch.manual_seed(0)
    networks = {name: nn.Linear(5, 3) for name in ("a/0000", "b/0000", "c/0000")}
    weights = {"a/0000": 0.7, "c/0000": 0.3}
    mixed = nn.Linear(5, 3)
    mixed.load_state_dict(blend({name: network.state_dict() for name, network in networks.items()}, weights))
    z = torch.randn(4, 5)
    expected = 0.7 * networks["a/0000"](z) + 0.3 * networks["c/0000"](z)
    torch.testing.assert_close(mixed(z), expected)


def test_a_blend_of_one_or_of_equals_is_that_one_in_its_own_type():
    state = {"weight": torch.randn(3, 2), "batches": torch.tensor(7)}
    for weights in ({"a/0000": 1.0}, {"a/0000": 0.5, "b/0000": 0.5}):
        mixed = blend({"a/0000": state, "b/0000": state}, weights)
        assert all(torch.equal(mixed[name], state[name]) and mixed[name].dtype == state[name].dtype for name in state)
