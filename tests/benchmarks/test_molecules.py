"""The benchmark on molecules, run whole with few steps; broken off, it ends with the same figures."""

import json
import sys

import pytest

from benchmarks import molecules


@pytest.fixture
def run(monkeypatch):
    def start(folder, steps=6):
        given = ["--data", "fragments", "--steps", str(steps), "--batch", "16", "--samples", "30", "--threads", "1"]
        given += ["--temperatures", "0.5", "1.0", "--output", str(folder)]
        monkeypatch.setattr(sys, "argv", ["molecules.py", *given])
        monkeypatch.setitem(molecules.NETWORKS, "fragments", {"adjacency_width": 8, "node_width": 8})
        monkeypatch.setattr(molecules, "LOOKS", 3)
        monkeypatch.setattr(molecules, "KEPT_EVERY", 2)
        monkeypatch.setattr(molecules, "PROPERTY_MOLECULES", 40)
        monkeypatch.setattr(molecules, "TEST_MOLECULES", 40)
        molecules.main()
        return json.loads((folder / "result.json").read_text())

    return start


def without_times(curve):
    return [{key: value for key, value in look.items() if "seconds" not in key} for look in curve]


def test_a_run_that_was_broken_off_goes_on_to_the_same_figures(run, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole")
    assert [look["step"] for look in whole["curve"]] == [2, 3, 6]
    assert [q["temperature"] for q in whole["curve"][0]["quality"]] == [0.5, 1.0]
    assert whole["reconstructed"] == {"molecules": 6858, "exactly": 6858}
    assert whole["quality"]["count"] == 30 and whole["quality_with_valency_correction"]["corrected"]
    assert run(tmp_path / "whole")["quality"] == whole["quality"], "nothing is trained again"

    look = molecules.look
    looks = []

    def broken(training, *rest):
        looks.append(training.step)
        if len(looks) == 3:
            raise KeyboardInterrupt
        return look(training, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(molecules, "look", broken)
        run(tmp_path / "broken")
    continued = run(tmp_path / "broken")
    assert without_times(continued["curve"]) == without_times(whole["curve"])
    assert continued["quality"] == whole["quality"]
    for name in ("interpolation.svg", "properties.svg", "curve.svg"):
        assert (tmp_path / "broken" / name).stat().st_size > 500


def test_temperatures_are_chosen_by_validity_among_those_that_are_unique_enough():
    def at(valid, unique):
        return {"valid": valid, "unique": unique}

    assert max([at(90, 94), at(85, 96), at(80, 99)], key=molecules.promise) == at(85, 96)
    assert max([at(90, 60), at(85, 80)], key=molecules.promise) == at(85, 80)
