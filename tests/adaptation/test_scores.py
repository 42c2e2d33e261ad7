"""What clients count of their predictions, and what the counts add up to by domain."""

import math

import pytest
import torch

from fmtda.adaptation.scores import (
    LABEL_FREE,
    Tally,
    accuracy_by_domain,
    class_iou,
    confusion_by_domain,
    label_free_by_domain,
    mean_iou,
)

COUNTS = {
    "pen/0000": {"num-examples": 10, "correct-global": 1, "correct-mean": 2, "confusion": [1, 2, 3, 4]},
    "pen/0001": {"num-examples": 90, "correct-global": 81, "correct-mean": 90, "confusion": [40, 0, 0, 50]},
    "blend/0000": {"num-examples": 4, "correct-global": 1, "confusion": [1, 1, 1, 1]},
    "street/0000": {"num-examples": 50, "entropy": 1.0},
}


def test_accuracy_is_pooled_over_examples_and_not_over_clients():
    accuracy = accuracy_by_domain(COUNTS)
    assert accuracy["pen"] == {"global": pytest.approx(82.0), "mean": pytest.approx(92.0)}
    assert accuracy["blend"] == {"global": 25.0}


def test_a_domain_without_labels_has_no_accuracy():
    assert "street" not in accuracy_by_domain(COUNTS)


def test_a_client_without_labels_does_not_count_in_its_domain():
    with_another = COUNTS | {"pen/0002": {"num-examples": 1000, "entropy": 1.0}}
    assert accuracy_by_domain(with_another)["pen"] == accuracy_by_domain(COUNTS)["pen"]


def test_a_client_that_has_not_trained_counts_for_f_g_alone():
    with_another = COUNTS | {"pen/0002": {"num-examples": 100, "correct-global": 0}}
    accuracy = accuracy_by_domain(with_another)["pen"]
    assert accuracy == {"global": pytest.approx(41.0), "mean": pytest.approx(92.0)}


def test_an_empty_test_share_divides_by_nothing():
    assert accuracy_by_domain({"pen/0000": {"num-examples": 0, "correct-global": 0}}) == {}


def test_confusion_counts_add_up_by_domain():
    assert confusion_by_domain(COUNTS) == {"pen": [41, 2, 3, 54], "blend": [1, 1, 1, 1]}
    assert COUNTS["pen/0000"]["confusion"] == [1, 2, 3, 4]


TWO_CLASSES = [40, 0, 10, 50]
"""True class by predicted class: 10 pixels of the second taken for the first."""


def test_the_intersection_over_union_is_the_one_computed_by_hand():
    assert class_iou(TWO_CLASSES, ["road", "sky"]) == pytest.approx({"road": 40 / 50 * 100, "sky": 50 / 60 * 100})
    assert mean_iou(TWO_CLASSES) == pytest.approx((40 / 50 + 50 / 60) / 2 * 100)


def test_a_class_that_is_nowhere_does_not_count_in_the_mean():
    nowhere = [40, 0, 0, 10, 50, 0, 0, 0, 0]
    assert mean_iou(nowhere) == pytest.approx(mean_iou(TWO_CLASSES))
    predicted_only = [40, 0, 0, 10, 50, 0, 0, 0, 0]
    predicted_only[2] = 10  # pixels of the first class taken for the third
    assert mean_iou(predicted_only) == pytest.approx((40 / 60 + 50 / 60 + 0) / 3 * 100)


def test_where_every_head_has_its_confusion_the_figure_is_the_mean_iou_over_all_clients_pixels():
    first = {"num-examples": 60, "correct-global": 50, "confusion-global": [20, 0, 10, 30]}
    second = {"num-examples": 40, "correct-global": 40, "confusion-global": [20, 0, 0, 20]}
    counts = {"dusk/0000": first, "dusk/0001": second}
    assert accuracy_by_domain(counts) == {"dusk": {"global": pytest.approx(mean_iou(TWO_CLASSES))}}


def test_what_is_told_without_labels_is_a_mean_over_examples():
    counts = {
        "clinic/0000": {"num-examples": 10, "entropy": 1.0, "agreement": 0.5},
        "clinic/0001": {"num-examples": 30, "entropy": 2.0},
        "pen/0000": {"num-examples": 0},
    }
    assert label_free_by_domain(counts) == {"clinic": {"entropy": pytest.approx(1.75), "agreement": 0.5}}


def probabilities_of(*classes: int) -> torch.Tensor:
    """One example each that is of this class with the probability 0.75, of three."""
    return torch.full((len(classes), 3), 0.125).scatter(1, torch.tensor(classes)[:, None], 0.75)


def test_a_tally_counts_over_batches_what_every_head_gets_right():
    tally = Tally("mean", classes=3, segmentation=False)
    for heads, labels in [((0, 1), [0, 2]), ((2, 2), [2, -1])]:
        predicted = probabilities_of(*heads)
        wrong = probabilities_of(*((each + 1) % 3 for each in heads))
        tally.add({"global": predicted, "local": predicted, "mean": wrong}, torch.tensor(labels))
    counts = tally.counts()
    assert counts["num-examples"] == 3  # those with labels
    assert {head: counts[f"correct-{head}"] for head in ("global", "local", "mean")} == {
        "global": 2,
        "local": 2,
        "mean": 1,
    }
    assert counts["agreement"] == 1.0
    assert counts["confusion"] == [0, 1, 0, 0, 0, 0, 1, 0, 1]  # of the head that counts
    assert not any(key.startswith("confusion-") for key in counts)
    entropy = -(0.75 * math.log(0.75) + 2 * 0.125 * math.log(0.125))
    assert counts["entropy"] == pytest.approx(entropy)  # over all four, the unlabelled too


def test_a_tally_without_labels_tells_what_can_be_told():
    tally = Tally("global", classes=3, segmentation=False)
    predicted, other = probabilities_of(0, 1), probabilities_of(0, 2)
    tally.add({"global": predicted, "local": other}, torch.tensor([-1, -1]), torch.tensor([-2.0, -4.0]))
    counts = tally.counts()
    assert set(counts) == {"num-examples", *LABEL_FREE}
    assert (counts["num-examples"], counts["agreement"], counts["log-likelihood"]) == (2, 0.5, -3.0)


def test_a_tally_of_maps_has_the_confusion_of_every_head_and_passes_over_unlabelled_maps():
    tally = Tally("global", classes=3, segmentation=True)
    maps = probabilities_of(0, 1, 1, 2).T.reshape(1, 3, 2, 2)
    tally.add({"global": maps}, torch.tensor([[[0, 1], [2, -1]]]))
    tally.add({"global": maps}, torch.tensor([-1]))
    counts = tally.counts()
    assert (counts["num-examples"], counts["correct-global"]) == (3, 2)
    assert counts["confusion-global"] == counts["confusion"] == [1, 0, 0, 0, 1, 0, 0, 1, 0]


def test_a_tally_of_nothing_divides_by_nothing():
    assert Tally("global", classes=3, segmentation=False).counts() == {"num-examples": 0}
