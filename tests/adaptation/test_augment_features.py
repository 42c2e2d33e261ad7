"""Feature vectors: both ways to prepare them by hand, and what the random changes keep."""

import math

import pytest
import torch

from fmtda.adaptation import augment_features
from fmtda.adaptation.augment_features import LEAST_DEVIATION, VIEW_DROPOUT, FeatureAugmentation

FEATURES = FeatureAugmentation()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def counts(rows=64, size=200):
    return torch.poisson(torch.full((rows, size), 3.0), generator=generator(9))


def labels_of(rows=64, classes=4):
    return torch.arange(rows) % classes


def test_plain_counts_become_relative_frequencies_times_their_number():
    prepared = FEATURES.prepare(torch.tensor([[2.0, 4.0, 0.0], [9.0, 0.0, 0.0]]), standardise=False)
    torch.testing.assert_close(prepared, torch.tensor([[1.0, 2.0, 0.0], [3.0, 0.0, 0.0]]))


def test_standardised_counts_are_square_roots_of_zero_mean_and_unit_variance():
    # 1, 4, 16 have the roots 1, 2, 4 of mean 7/3 and variance 21/3 - 49/9 = 14/9; scaling before cancels.
    prepared = FEATURES.prepare(torch.tensor([[1.0, 4.0, 16.0]]), standardise=True)
    expected = [(root - 7 / 3) / math.sqrt(14 / 9) for root in (1, 2, 4)]
    torch.testing.assert_close(prepared, torch.tensor([expected]))


def test_signed_features_keep_their_signs():
    signed = torch.tensor([[-4.0, 1.0, 1.0]])
    torch.testing.assert_close(FEATURES.prepare(signed, False), torch.tensor([[-2.0, 0.5, 0.5]]))
    # roots -2, 1, 1: mean 0, variance 2
    expected = torch.tensor([[-2.0, 1.0, 1.0]]) / math.sqrt(2)
    torch.testing.assert_close(FEATURES.prepare(signed, True), expected)


@pytest.mark.parametrize("standardise", [False, True])
def test_a_vector_is_prepared_alike_alone_and_among_signed_ones(standardise):
    together = torch.cat([counts(4), -counts(4)])
    prepared = FEATURES.prepare(together, standardise)
    alone = torch.cat([FEATURES.prepare(vector[None], standardise) for vector in together])
    torch.testing.assert_close(prepared, alone)


@pytest.mark.parametrize("standardise", [False, True])
def test_how_many_words_were_found_does_not_count(standardise):
    torch.testing.assert_close(FEATURES.prepare(counts() * 7, standardise), FEATURES.prepare(counts(), standardise))


def test_empty_and_flat_vectors_do_not_turn_into_noise():
    degenerate = torch.stack([torch.zeros(100), torch.full((100,), 5.0), torch.full((100,), 5.0)])
    degenerate[2, 0] = 5.01
    assert torch.equal(FEATURES.prepare(degenerate, False)[0], torch.zeros(100))
    assert FEATURES.prepare(degenerate, True).abs().max() < 0.001 / LEAST_DEVIATION


def test_randomised_vectors_keep_labels_shape_and_type():
    inputs, labels = FEATURES.randomise(counts(), labels_of(), generator())
    assert torch.equal(labels, labels_of())
    assert inputs.shape == (64, 200) and inputs.dtype == torch.float32
    assert (inputs >= 0).all() and not torch.equal(inputs, counts())


def test_classes_do_not_mix():
    # each class has words of its own: whatever is drawn, the others' stay at zero
    labels = labels_of()
    own = torch.nn.functional.one_hot(labels, 4).repeat_interleave(50, dim=1).bool()
    inputs = counts() * own
    for seed in range(5):
        randomised, _ = FEATURES.randomise(inputs, labels, generator(seed))
        assert not randomised[~own].any()


def test_mixing_alone_lies_between_two_of_a_class_and_keeps_the_norm(monkeypatch):
    monkeypatch.setattr(augment_features, "MIXED", 1.0)
    monkeypatch.setattr(augment_features, "WORD_DROPOUT", 0.0)
    inputs = torch.tensor([[8.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 5.0]])
    labels = torch.tensor([1, 1, 0])
    draws = torch.stack([FEATURES.randomise(inputs, labels, generator(seed))[0] for seed in range(200)])
    torch.testing.assert_close(draws.sum(dim=2), inputs.sum(dim=1).expand(200, 3))
    assert torch.equal(draws[:, 2], inputs[2].expand(200, 3))  # alone in its class
    # the partner is either of two at even chance, the share uniform: 8 (1/2 + 1/2 . 1/2) = 6 of the own word on average
    assert draws[:, 0, 0].mean().item() == pytest.approx(6, abs=0.6)
    assert draws[:, 0, 1].max() > 6 and draws[:, 0, 1].min() == 0


def test_unknown_labels_are_not_mixed(monkeypatch):
    monkeypatch.setattr(augment_features, "MIXED", 1.0)
    monkeypatch.setattr(augment_features, "WORD_DROPOUT", 0.0)
    randomised, _ = FEATURES.randomise(counts(), torch.full((64,), -1), generator())
    assert torch.equal(randomised, counts())


def test_dropped_words_are_up_to_the_largest_share_and_others_stay(monkeypatch):
    monkeypatch.setattr(augment_features, "MIXED", 0.0)
    monkeypatch.setattr(augment_features, "WORD_DROPOUT", 0.6)
    inputs = torch.ones(500, 400)
    randomised, _ = FEATURES.randomise(inputs, torch.zeros(500, dtype=torch.int64), generator())
    assert set(randomised.unique().tolist()) == {0.0, 1.0}
    share = 1 - randomised.mean(dim=1)
    # shares are uniform on [0, 0.6]
    assert share.mean().item() == pytest.approx(0.3, abs=0.03)
    assert share.min() < 0.05 and 0.5 < share.max() < 0.7


def test_a_view_drops_its_share_of_the_words_and_changes_no_other():
    view = FEATURES.view(torch.full((100, 400), -2.5), generator())
    assert set(view.unique().tolist()) == {0.0, -2.5}
    assert (view == 0).float().mean().item() == pytest.approx(VIEW_DROPOUT, abs=0.01)


def test_equal_generators_give_equal_vectors_and_the_global_one_is_not_used():
    before = torch.get_rng_state()
    first, same, other = (FEATURES.randomise(counts(), labels_of(), generator(seed))[0] for seed in (1, 1, 2))
    views = [FEATURES.view(counts(), generator(seed)) for seed in (1, 1, 2)]
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert torch.equal(views[0], views[1]) and not torch.equal(views[0], views[2])
    assert torch.equal(before, torch.get_rng_state())
