"""What evaluation counts add up to, and which counts can't be true."""

import re

import pytest

from fmtda.protocol.records import BadReply
from fmtda.server.metrics import (
    accuracy_by_domain,
    check_counts,
    class_iou,
    confusion_by_domain,
    mean_iou,
    summarise,
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


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_possible_counts_pass(counts):
    check_counts(counts, classes=2)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num-examples": -1}, "num-examples is -1"),
        ({"num-examples": 10.5}, "num-examples is 10.5"),
        ({"num-examples": [10]}, "num-examples"),
        ({"correct-global": 11}, "correct-global is 11 of 10"),
        ({"correct-mean": -1}, "correct-mean is -1 of 10"),
        ({"correct-local": 3.5}, "correct-local is 3.5"),
        ({"correct-personal": [1, 2]}, "correct-personal"),
        ({"confusion": [1, 2, 3]}, "confusion"),
        ({"confusion": [1, 2, 3, 5]}, "confusion"),
        ({"confusion": [-1, 2, 3, 4]}, "confusion"),
        ({"confusion": 7}, "confusion"),
        ({"confusion-global": [1, 2, 3, 4]}, "confusion counts come for the heads ['global']"),
    ],
)
def test_impossible_counts_are_refused_by_name(changes, named):
    with pytest.raises(BadReply, match=re.escape(named)) as caught:
        check_counts(COUNTS["pen/0000"] | changes, classes=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("head", ["local", "mean"])
def test_a_head_without_f_g_is_refused(head):
    with pytest.raises(BadReply, match=f"correct-{head} comes without correct-global"):
        check_counts({"num-examples": 10, f"correct-{head}": 5}, classes=2)


def test_the_personalised_copy_comes_alone():
    check_counts({"num-examples": 10, "correct-personal": 5}, classes=2)


def test_counts_without_a_number_of_examples_are_refused():
    with pytest.raises(BadReply, match="num-examples"):
        check_counts({"correct-global": 0}, classes=2)


def client(up, down, seconds):
    return {"up": up, "up_training": up, "down": down, "seconds": seconds, "train": {}, "evaluate": {}}


@pytest.fixture
def lines():
    start = {"round": 0, "phase": "round", "accuracy": {"pen": {"global": 40.0}}, "confusion": {}, "clients": {}}
    start |= {"failures": [], "source_only": {"pen": 40.0}, "plain_source_only": {"pen": 20.0}}
    first = {"round": 1, "phase": "round", "accuracy": {"pen": {"global": 50.0, "mean": 55.0}}, "server_seconds": 3.0}
    first |= {"confusion": {}, "failures": ["pen/0001: gone"]}
    first |= {"clients": {"pen/0000": client(10, 100, 2.0), "pen/0001": client(20, 300, 4.0)}}
    last = first | {"round": 2, "accuracy": {"pen": {"global": 60.0, "mean": 65.0}, "blend": {"global": 75.0}}}
    last |= {"server_seconds": 5.0, "failures": [], "confusion": {"pen": [1, 0, 0, 1]}}
    return [start, first, last]


def test_the_summary_has_every_field_of_the_design(settings_of, lines):
    summary = summarise(settings_of({"seed": 3, "rounds": 2, "dualadapt.inference": "mean"}), lines, wall_seconds=12.5)
    assert summary["accuracy"] == {"pen": 65.0, "blend": 75.0}
    assert summary["average_accuracy"] == 70.0
    assert summary["source_only"] == {"pen": 40.0}
    assert summary["plain_source_only"] == {"pen": 20.0}
    assert summary["uplink_bytes_per_client_round"] == 15
    assert summary["downlink_bytes_per_client_round"] == 200
    assert summary["client_seconds_per_round"] == 3.0
    assert summary["server_seconds_per_round"] == 4.0
    assert summary["wall_seconds"] == 12.5
    assert summary["failures"] == 1
    assert summary["confusion"] == {"pen": [1, 0, 0, 1]}
    assert (summary["workload"], summary["strategy"], summary["preset"]) == ("adaptation", "dualadapt", "default")
    assert (summary["data"], summary["seed"], summary["rounds"], summary["clients"]) == ("digits", 3, 2, 4)


def test_personalising_decides_the_accuracy_and_costs_no_round(settings_of, lines):
    personalised = lines[-1] | {"phase": "personalise", "clients": {"pen/0000": client(999, 999, 999.0)}}
    personalised["accuracy"] = {"pen": {"global": 60.0, "mean": 65.0, "personal": 90.0}}
    del personalised["server_seconds"]
    summary = summarise(settings_of({"rounds": 2}), [*lines, personalised], 1.0)
    assert summary["accuracy"] == {"pen": 90.0}
    assert summary["uplink_bytes_per_client_round"] == 15
    assert summary["personalise_seconds_per_client"] == 999.0


def test_a_target_that_is_missing_in_the_end_leaves_no_average(settings_of, lines):
    lines[0]["source_only"] = {"pen": 40.0, "street": 30.0}
    assert summarise(settings_of({"rounds": 2}), lines, 1.0)["average_accuracy"] is None


def test_a_federation_without_labels_has_a_summary_too(settings_of, lines):
    for each in lines:
        each["accuracy"] = {}
    summary = summarise(settings_of({"rounds": 2}), lines, 1.0)
    assert summary["accuracy"] == {}
    assert summary["average_accuracy"] is None


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
    first = {
        "num-examples": 60,
        "correct-global": 50,
        "confusion-global": [20, 0, 10, 30],
        "confusion": [20, 0, 10, 30],
    }
    second = {"num-examples": 40, "correct-global": 40, "confusion-global": [20, 0, 0, 20], "confusion": [20, 0, 0, 20]}
    counts = {"dusk/0000": first, "dusk/0001": second}
    assert accuracy_by_domain(counts) == {"dusk": {"global": pytest.approx(mean_iou(TWO_CLASSES))}}
    check_counts(first, classes=2, segmentation=True)
    with pytest.raises(BadReply, match="confusion-global"):
        check_counts(first | {"confusion-global": [20, 0, 10, 31]}, classes=2, segmentation=True)
    with pytest.raises(BadReply, match=r"confusion counts come for the heads \['global'\], right predictions for"):
        check_counts(first | {"correct-local": 50}, classes=2, segmentation=True)
