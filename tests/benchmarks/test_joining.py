"""The measurement of joining: every cell in small, gone on with where it was left, and told in two tables."""

import json
import shutil
import sys

import pytest

from benchmarks import joining
from tests.conftest import blink

pytestmark = pytest.mark.usefixtures("few_source_examples")


def test_cells_of_a_target_are_measured_once_and_tabulated(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(joining, "AFTER", (0, 1, 2, 3))
    few = {
        "data.target-limit": 40,
        "data.source-limit": 60,
        "inputs.randomise": "false",
        "inputs.scenery": "false",
        "data.targets": "blend,pen",
    }
    pairs = [word for key, value in blink(few).items() for word in ("-c", f"{key}={value}")]
    words = ["joining", "--output", str(tmp_path), "--before", "1", "--only", "pen,start", *pairs]
    monkeypatch.setattr(sys, "argv", words)
    joining.main()
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["cells"]) == [*("start", "pen-before", "pen-nearest", "pen-global", "pen-bare", "pen-without")]
    assert str(tmp_path) not in json.dumps(results)
    accuracy = {cell: result["accuracy"] for cell, result in results["cells"].items()}
    for cell in ("start", "pen-nearest", "pen-global"):
        assert {"2", "3", "4", "5"} <= set(accuracy[cell])
        assert set(accuracy[cell]["5"]) == {"blend", "pen"}
    assert set(accuracy["pen-without"]["5"]) == {"blend"}
    assert list(results["cells"]["pen-nearest"]["nearest"]) == ["pen/0000"]
    table = (tmp_path / "table.md").read_text()
    assert "| pen | the blend of its nearest |" in table and "blend/0000 (1.00)" in table
    assert "| blend | F_g | - | - | - | - |  |" in table
    assert set(accuracy["pen-bare"]) >= {"2"} and max(accuracy["pen-bare"], key=int) == "2"
    heads = results["cells"]["pen-bare"]["heads"]
    assert heads["mean"] == accuracy["pen-bare"]["2"]["pen"]
    assert f"| pen | {heads['global']:.1f} | {heads['local']:.1f} | {heads['mean']:.1f} |" in table
    assert "| blend | - | - | - |" in table

    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("cells/*.json")}
    capsys.readouterr()
    joining.main()
    assert "cell " not in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("cells/*.json")} == files

    # As where the folder came out of git.
    for cell in ("pen-without", "pen-nearest"):
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        (tmp_path / "cells" / f"{cell}.json").unlink()
        joining.main()
        again = json.loads((tmp_path / "results.json").read_text())["cells"]
        assert {cell: result["accuracy"] for cell, result in again.items()} == accuracy
