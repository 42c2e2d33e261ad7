"""Which evaluation counts can't be true, and what summary.json says."""

import re

import pytest

from fmtda.adaptation.scores import mean_iou
from fmtda.protocol.records import BadReply
from fmtda.server.adaptation import check_counts
from fmtda.server.metrics import ACCURACY, MEAN_IOU, summarise

COUNTS = {
    "pen/0000": {"num-examples": 10, "correct-global": 1, "correct-mean": 5, "confusion": [1, 2, 3, 4]},
    "pen/0001": {"num-examples": 90, "correct-global": 81, "correct-mean": 90, "confusion": [40, 0, 0, 50]},
    "blend/0000": {"num-examples": 4, "correct-global": 2, "confusion": [1, 1, 1, 1]},
    "street/0000": {"num-examples": 50, "entropy": 0.6},
}


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
        ({"correct-mean": -1}, "correct-mean is -1, expected a whole number from 0"),
        (
            {"correct-mean": 4},
            "add up to 10 of 10 examples, on the diagonal to 5 of correct-mean=4",
        ),
        ({"num-examples": 11}, "confusion: the counts add up to 10 of 11 examples"),
        ({"num-examples": True}, "num-examples is True"),
        ({"num-examples": 2**62}, "num-examples is a whole number of 63 bits"),
        ({"entropy": 0.8}, "entropy is 0.8, expected a number from -0.001 to 0.70"),
        ({"entropy": float("nan")}, "metric entropy is not finite"),
        ({"agreement": 1.1}, "agreement is 1.1, expected a number from 0 to 1"),
        ({"log-likelihood": -1e300}, "log-likelihood is -1e+300"),
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


def test_confusion_counts_need_right_predictions_and_are_those_of_the_head_that_counts():
    with pytest.raises(BadReply, match="confusion counts come without right predictions"):
        check_counts({"num-examples": 10, "confusion": [1, 2, 3, 4]}, classes=2)
    counts = COUNTS["pen/0000"] | {"correct-local": 3, "correct-mean": 3}
    with pytest.raises(BadReply, match="correct-mean=3"):
        check_counts(counts, classes=2)
    check_counts(counts | {"correct-local": 5}, classes=2, inference="local")


def test_counts_beyond_what_torch_can_add_have_a_mean_all_the_same():
    huge = 2**62
    assert mean_iou([huge, 0, 0, huge]) == 100.0
    assert mean_iou([3 * huge, huge, 0, 4 * huge]) == pytest.approx(mean_iou([3, 1, 0, 4]))


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
    summary = summarise(settings_of({"seed": 3, "rounds": 2}), "mean", ACCURACY, lines, wall_seconds=12.5)
    assert summary["accuracy"] == {"pen": 65.0, "blend": 75.0}
    assert summary["average_accuracy"] == 70.0
    assert summary["source_only"] == {"pen": 40.0}
    assert summary["plain_source_only"] == {"pen": 20.0}
    assert (summary["inference"], summary["metric"]) == ("mean", "accuracy")
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
    summary = summarise(settings_of({"rounds": 2}), "mean", ACCURACY, [*lines, personalised], 1.0)
    assert summary["accuracy"] == {"pen": 90.0}
    assert summary["uplink_bytes_per_client_round"] == 15
    assert summary["personalise_seconds_per_client"] == 999.0


def test_a_target_that_is_missing_in_the_end_leaves_no_average(settings_of, lines):
    lines[0]["source_only"] = {"pen": 40.0, "street": 30.0}
    assert summarise(settings_of({"rounds": 2}), "mean", ACCURACY, lines, 1.0)["average_accuracy"] is None


def test_a_federation_without_labels_has_a_summary_too(settings_of, lines):
    for each in lines:
        each["accuracy"] = {}
    summary = summarise(settings_of({"rounds": 2}), "mean", ACCURACY, lines, 1.0)
    assert summary["accuracy"] == {}
    assert summary["average_accuracy"] is None


def test_where_labels_are_maps_every_head_comes_with_its_confusion():
    counts = {"num-examples": 60, "correct-global": 50, "confusion": [20, 0, 10, 30]}
    counts["confusion-global"] = counts["confusion"]
    check_counts(counts, classes=2, segmentation=True)
    with pytest.raises(BadReply, match="confusion-global"):
        check_counts(counts | {"confusion-global": [20, 0, 10, 31]}, classes=2, segmentation=True)
    with pytest.raises(BadReply, match=r"confusion counts come for the heads \['global'\], right predictions for"):
        check_counts(counts | {"correct-local": 50}, classes=2, segmentation=True)


def test_the_head_that_counts_is_the_one_that_the_algorithm_names(settings_of, lines):
    lines[-1]["accuracy"]["pen"]["local"] = 80.0
    settings = settings_of({"rounds": 2})
    assert summarise(settings, "local", ACCURACY, lines, 1.0)["accuracy"] == {"pen": 80.0, "blend": 75.0}
    assert summarise(settings, "mean", ACCURACY, lines, 1.0)["accuracy"] == {"pen": 65.0, "blend": 75.0}


def test_a_segmentation_run_tells_the_intersection_over_union_of_every_class(settings_of, lines):
    settings = settings_of({"rounds": 2, "data.name": "streets", "data.targets": "fog"})
    classes = len(settings.class_names)
    lines[-1]["confusion"] = {"fog": [0] * classes**2}
    lines[-1]["confusion"]["fog"][0] = 7
    summary = summarise(settings, "mean", MEAN_IOU, lines, 1.0)
    assert summary["metric"] == "mean-iou"
    assert summary["class_iou"]["fog"] == dict.fromkeys(settings.class_names, 0.0) | {settings.class_names[0]: 100.0}
    assert "class_iou" not in summarise(settings, "mean", ACCURACY, lines, 1.0)
