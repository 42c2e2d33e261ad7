"""Somebody else's package (`tests/outside`) adds to fmtda from outside: one file each, found by its entry points.

Every command runs as a user types it, in a process of its own, with that package on the path and nothing else changed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

OUTSIDE = Path(__file__).parent / "outside"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(OUTSIDE), os.environ.get("PYTHONPATH", "")])}


def fmtda(*words: object, status: int = 0) -> str:
    """What a command prints; it ends with this status."""
    command = [sys.executable, "-m", "fmtda", *map(str, words)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=500)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def benchmarked(tmp_path_factory) -> Path:
    """A benchmark of the outside algorithm on the outside family, whose own network is outside too."""
    output = tmp_path_factory.mktemp("outside") / "benchmark"
    few = ("-c", "rounds=1", "-c", "server-threads=1", "-c", "averaged-statistics.share=0.25")
    fmtda("benchmark", "--data", "bars", "--methods", "averaged-statistics", "--seeds", 1, "--output", output, *few)
    return output


@pytest.fixture(scope="module")
def run(benchmarked) -> Path:
    """The run directory that `fmtda simulate` made in that benchmark."""
    return benchmarked / "cells" / "averaged-statistics" / "seed-0" / "run"


def test_simulate_runs_it_with_its_own_settings(run):
    settings = (run / "config.toml").read_text()
    assert 'strategy = "averaged-statistics"' in settings
    assert "[settings.averaged-statistics]\nshare = 0.25" in settings
    assert 'name = "one-convolution"' in settings
    summary = json.loads((run / "summary.json").read_text())
    assert summary["data"] == "bars"
    assert summary["failures"] == 0
    assert summary["accuracy"]["night"] > 75


def test_benchmark_lists_its_row(benchmarked):
    assert "averaged-statistics" in (benchmarked / "table.md").read_text()
    results = json.loads((benchmarked / "results.json").read_text())
    assert [method["name"] for method in results["methods"]] == ["averaged-statistics"]


def test_predict_uses_it(run, tmp_path):
    bar = Image.new("RGB", (16, 16), (10, 10, 10))
    bar.paste((90, 90, 90), (0, 6, 16, 9))
    bar.save(tmp_path / "bar.png")
    fmtda("predict", run, tmp_path / "bar.png", "--output", tmp_path / "labels.csv")
    assert "lying" in (tmp_path / "labels.csv").read_text()


def test_export_uses_it(run, tmp_path):
    fmtda("export", run, "--format", "safetensors", "--output", tmp_path / "model.safetensors")
    assert "averaged-statistics" in (tmp_path / "model.safetensors.md").read_text()


def test_report_shows_it(run, tmp_path):
    fmtda("report", run, "--output", tmp_path / "report.html")
    assert "averaged-statistics on bars" in (tmp_path / "report.html").read_text()


def test_generate_and_sample_draw_from_it(tmp_path):
    few = ["--rounds", 1, "-c", "training.steps=5", "-c", "samples.quality=0", "-c", "data.target-limit=40"]
    fmtda("generate", "independent-pixels", "--local", "--output", tmp_path / "run", *few)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["parameters"] == 2 * 16 * 16
    fmtda("sample", tmp_path / "run", "--count", 4, "--output", tmp_path / "samples.png")
    assert Image.open(tmp_path / "samples.png").size[0] > 16


def test_a_class_is_named_without_being_registered(tmp_path):
    place = "fmtda_outside.averaged_statistics:AveragedStatistics"
    printed = fmtda("simulate", "--strategy", place, "-c", "averaged-statistics.share=2", status=2)
    assert "averaged-statistics.share=2: should be less than or equal to 1" in printed
    printed = fmtda("simulate", "--strategy", "fmtda_outside.averaged_statistics:Nothing", status=2)
    assert "can't be imported" in printed


def test_a_command_names_what_there_is_from_outside():
    assert "averaged-statistics" in fmtda("simulate", "--strategy", "nothing", status=2)
    assert "bars" in fmtda("data", "list")
    assert "independent-pixels" in fmtda("generate", "nothing", status=2)
