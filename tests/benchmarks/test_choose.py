"""Choosing a setting without labels: what is judged, that labels have no say, and which value is named."""

import json

import pytest

from benchmarks.choose import chosen, judge, main, table
from fmtda.domains.digits import Digits
from fmtda.domains.source import WATCHED

FEW = {"data.target-limit": 40, "data.source-limit": 60, "inputs.scenery": False}
CRITERIA = {"mean_entropy", "prediction_information", "soft_neighbourhood_density", "view_information"}


@pytest.fixture(autouse=True, scope="module")
def small_look():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(WATCHED, "digits", 30)
        yield


@pytest.fixture
def settings(settings_of):
    return settings_of({**FEW, "data.targets": "blend,pen"})


def result(hold_out, information, source=70.0, own_statistics=75.0, labels=10_000):
    return {
        "hold_out": hold_out,
        "source": {"after": source, "labels": labels},
        "own_statistics": {"before": 75.0, "after": own_statistics},
        "after": {"view_information": information},
    }


def test_a_value_is_judged_without_the_targets_labels(settings, monkeypatch):
    judged = judge(settings)
    assert set(judged["before"]) == set(judged["after"]) == CRITERIA
    assert 0 <= judged["hold_out"] <= 100
    assert judged["before"] != judged["after"]
    assert set(judged["own_statistics"]) == {"before", "after"}
    assert set(judged["source"]) == {"before", "after", "labels"} and judged["source"]["labels"] > 0

    load = Digits.load
    unlabelled = {"blend", "pen"}

    def without(self, domain, part, spec):
        examples = load(self, domain, part, spec)
        return examples.without_labels() if domain in unlabelled else examples

    monkeypatch.setattr(Digits, "load", without)
    again = judge(settings)
    assert {**again, "seconds": 0} == {**judged, "seconds": 0}


def test_the_best_hold_out_is_named_unless_a_level_one_tells_more_about_the_targets():
    assert chosen({"1": result(70.0, 2.0), "2": result(80.0, 1.0)}) == "2"
    assert chosen({"1": result(79.8, 2.0), "2": result(80.0, 1.0), "3": result(79.0, 2.2)}) == "1"


def test_of_level_hold_outs_the_one_is_named_that_harms_the_source_least():
    assert chosen({"1": result(80.0, 2.0, 60.0), "2": result(79.8, 1.0, 70.0), "3": result(70.0, 1.0, 80.0)}) == "2"


def test_one_example_of_a_small_source_is_level():
    few = {"true": result(80.0, 2.0, 100 * 69 / 88, labels=88), "false": result(80.0, 1.0, 100 * 70 / 88, labels=88)}
    assert chosen(few) == "true"
    assert chosen({**few, "true": result(80.0, 2.0, 100 * 68 / 88, labels=88)}) == "false"


def test_of_level_hold_outs_those_are_left_that_own_statistics_harm_least():
    harmful, harmless = result(80.0, 2.0, 72.0, own_statistics=70.0), result(80.0, 1.0, 70.0)
    assert chosen({"true": harmful, "false": harmless}) == "false"
    assert chosen({"true": result(80.0, 2.0, 72.0, own_statistics=74.6), "false": harmless}) == "true"


def test_without_own_statistics_nothing_changes_by_them(settings_of):
    off = settings_of({**FEW, "data.targets": "pen", "dualadapt.batch-norm.on": False})
    judged = judge(off)["own_statistics"]
    assert judged["before"] == judged["after"]


def test_the_command_writes_figures_and_a_table_without_a_path(settings, tmp_path, capsys):
    path = tmp_path / "out" / "choice.json"
    shared = [
        "data.targets=pen",
        "data.target-limit=40",
        "data.source-limit=60",
        "inputs.scenery=false",
        "pretraining.batch=8",
        "server-threads=1",
    ]
    shared += ["dualadapt.self-training.steps=2", f"pretraining.base-dir={tmp_path}"]
    main(["pretraining.steps", "2,4", "--output", str(path), *(word for pair in shared for word in ("-c", pair))])
    report = json.loads(path.read_text())
    assert list(report["tried"]) == ["2", "4"]
    assert report["chosen"] in ("2", "4")
    assert str(tmp_path) not in path.read_text()
    printed = capsys.readouterr().out
    assert table("pretraining.steps", report["tried"]) in printed
    assert f"chosen without a target's label: pretraining.steps={report['chosen']}" in printed


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["pretraining.stepz", "2"], "pretraining.stepz: no such key; did you mean pretraining.steps"),
        (["pretraining.steps", "none"], "pretraining.steps=none"),
        (["pretraining.steps", "2", "-c", "digits"], "-c digits: expected KEY=VALUE"),
    ],
)
def test_bad_input_is_named(arguments, named, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert named in capsys.readouterr().err
