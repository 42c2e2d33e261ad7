"""Criteria without labels: against numpy and scikit-learn, by hand, and what each says of a collapsed classifier."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from sklearn.metrics import mutual_info_score

from fmtda.adaptation.losses import information_maximisation
from fmtda.adaptation.validation_criteria import (
    mean_entropy,
    prediction_information,
    soft_neighbourhood_density,
    view_information,
)

COLLAPSED = torch.eye(4)[torch.zeros(40, dtype=torch.int64)]
CLUSTERED = torch.eye(4)[torch.arange(40) % 4]
UNDECIDED = torch.full((40, 4), 0.25)


def some_logits(examples=60, classes=5, scale=3.0, seed=0):
    return scale * torch.randn(examples, classes, generator=torch.Generator().manual_seed(seed))


def some_probabilities(**settings):
    return some_logits(**settings).softmax(dim=1)


def test_mean_entropy_is_scipys():
    probabilities = some_probabilities()
    assert mean_entropy(probabilities) == pytest.approx(entropy(probabilities.numpy(), axis=1).mean(), rel=1e-5)


def test_prediction_information_is_the_negative_of_the_loss():
    logits = some_logits()
    assert prediction_information(logits.softmax(dim=1)) == pytest.approx(
        -information_maximisation(logits).item(), rel=1e-5
    )


@pytest.mark.parametrize("block", [1, 7, 60, 1024])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_soft_neighbourhood_density_is_what_numpy_computes_one_example_at_a_time(block, temperature):
    probabilities = some_probabilities()
    p = probabilities.numpy().astype(np.float64)
    expected = []
    for i in range(len(p)):
        others = [p[i] @ p[j] / np.linalg.norm(p[i]) / np.linalg.norm(p[j]) for j in range(len(p)) if j != i]
        expected.append(entropy(np.exp(np.array(others) / temperature)))
    assert soft_neighbourhood_density(probabilities, temperature, block) == pytest.approx(np.mean(expected), rel=1e-4)


def test_soft_neighbourhood_density_counts_the_others_of_a_sharp_cluster():
    # ten in each of four clusters: nine neighbours each
    assert soft_neighbourhood_density(CLUSTERED) == pytest.approx(math.log(9), abs=1e-4)


def test_view_information_of_certain_predictions_is_scikit_learns_mutual_information():
    rng = np.random.default_rng(0)
    one = rng.integers(0, 4, 200)
    other = np.where(rng.random(200) < 0.2, rng.integers(0, 4, 200), one)
    # scikit-learn doesn't make the joint symmetric: both orders together are
    expected = mutual_info_score(np.concatenate([one, other]), np.concatenate([other, one]))
    first, second = torch.eye(4)[one], torch.eye(4)[other]
    assert view_information(first, second) == pytest.approx(expected, rel=1e-4)
    assert view_information(first, second) == pytest.approx(view_information(second, first), rel=1e-6)


def test_which_criteria_a_collapsed_classifier_deceives():
    assert mean_entropy(COLLAPSED) == pytest.approx(0)
    assert soft_neighbourhood_density(COLLAPSED) == pytest.approx(math.log(39), rel=1e-5)
    assert prediction_information(COLLAPSED) == pytest.approx(0, abs=1e-6)
    assert view_information(COLLAPSED, COLLAPSED) == pytest.approx(0, abs=1e-6)


def test_information_is_log_c_for_certain_and_balanced_predictions_and_none_for_undecided_ones():
    assert prediction_information(CLUSTERED) == pytest.approx(math.log(4), rel=1e-5)
    assert view_information(CLUSTERED, CLUSTERED) == pytest.approx(math.log(4), rel=1e-5)
    assert prediction_information(UNDECIDED) == pytest.approx(0, abs=1e-6)
    assert view_information(UNDECIDED, UNDECIDED) == pytest.approx(0, abs=1e-6)


def test_view_information_falls_with_every_disagreement():
    shifted = CLUSTERED.clone()
    scores = []
    for example in range(5):
        scores.append(view_information(CLUSTERED, shifted))
        shifted[example] = shifted[example].roll(1)
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == len(scores)


@pytest.mark.parametrize("criterion", [mean_entropy, prediction_information, soft_neighbourhood_density])
@pytest.mark.parametrize("shape", [(0, 4), (4,), (2, 3, 4)])
def test_a_wrong_shape_is_refused(criterion, shape):
    with pytest.raises(ValueError, match=r"\(N, C\)"):
        criterion(torch.ones(shape))


def test_a_neighbourhood_of_one_is_refused():
    with pytest.raises(ValueError, match="1 example"):
        soft_neighbourhood_density(torch.ones(1, 4))


def test_views_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(2, 4\)"):
        view_information(torch.ones(3, 4), torch.ones(2, 4))
