"""Components on too few examples are left out."""

import pytest
import torch

from fmtda.adaptation.component_floor import Components, with_enough_examples

THREE = Components(
    torch.tensor([0.5, 0.1, 0.4]), torch.tensor([[0.0], [5.0], [1.0]]), torch.tensor([[1.0], [2.0], [3.0]])
)
COUNTS = torch.tensor([50.0, 9.9, 40.1])


def test_nothing_changes_where_all_have_enough():
    assert with_enough_examples(THREE, COUNTS, 9) is THREE
    assert with_enough_examples(THREE, COUNTS, 0) is THREE


def test_a_small_component_is_dropped_and_the_weights_sum_to_one_again():
    left = with_enough_examples(THREE, COUNTS, 10)
    torch.testing.assert_close(left.weights, torch.tensor([5 / 9, 4 / 9]))
    assert left.means.tolist() == [[0.0], [1.0]] and left.variances.tolist() == [[1.0], [3.0]]


def test_where_none_has_enough_one_gaussian_of_the_mixtures_moments_is_left():
    one = with_enough_examples(THREE, COUNTS, 60)
    drawn = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(THREE.weights),
        torch.distributions.Normal(THREE.means[:, 0], THREE.variances[:, 0].sqrt()),
    )
    assert one.weights.tolist() == [1.0]
    assert one.means.item() == pytest.approx(drawn.mean.item())
    assert one.variances.item() == pytest.approx(drawn.variance.item())
