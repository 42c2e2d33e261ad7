"""A whole run with privacy: its account in metrics and summary, and what a deployment withholds."""

import io
import json

import pytest
from rich.console import Console

from fmtda.adaptation.privacy_account import Release, epsilon
from fmtda.face.run_table import print_run
from fmtda.server.app import run

pytestmark = pytest.mark.usefixtures("few_source_examples")

NOISE = {"privacy.noise": 1.0, "privacy.mixture-noise": 4.0}


def finished(grid, settings, silence):
    directory = run(grid, settings, silence)
    return directory.metrics(), json.loads((directory.path / "summary.json").read_text())


def without_seconds(lines):
    for line in lines:
        line.pop("server_seconds", None)
        line.pop("wall_seconds")
        line.pop("pretraining_seconds", None)
        for client in line["clients"].values():
            client.pop("seconds")
    return lines


def test_epsilon_of_every_client_is_in_each_line_in_the_summary_and_told(small_run, grid_of, silence):
    settings = small_run({"rounds": 2, **NOISE})
    lines, summary = finished(grid_of.simulated(3), settings, silence)
    sizes = {"blend/0000": 20, "blend/0001": 20, "pen/0000": 40}
    releases = {name: Release(settings.algorithm.client_steps, 8 / size, 1.0, 4.0) for name, size in sizes.items()}
    for line in lines[1:]:
        assert line["failures"] == []
        for name, client in line["clients"].items():
            assert set(client["train"]) == {"num-examples", "epsilon"}
            assert client["train"]["epsilon"] == pytest.approx(epsilon([releases[name]] * line["round"], 1e-5))
    expected = {name: lines[-1]["clients"][name]["train"]["epsilon"] for name in sizes}
    assert summary["privacy"] == {"delta": 1e-5, "epsilon": expected}
    assert set(summary["accuracy"]) == {"blend", "pen"}  # a simulation may tell
    text = io.StringIO()
    print_run(Console(file=text, width=200), summary, settings.output)
    assert f"epsilon {max(expected.values()):.3g}" in text.getvalue()


def test_a_resumed_run_equals_an_unbroken_one_and_spends_no_more(small_run, grid_of, silence, tmp_path):
    whole = finished(
        grid_of.simulated(3), small_run({"rounds": 2, "output": str(tmp_path / "whole"), **NOISE}), silence
    )
    broken = small_run({"rounds": 1, "output": str(tmp_path / "broken"), **NOISE})
    finished(grid_of.simulated(3), broken, silence)
    resumed = finished(grid_of.simulated(3), broken.changed({"rounds": 2, "resume": True}), silence)
    assert without_seconds(resumed[0]) == without_seconds(whole[0])
    assert resumed[1]["privacy"] == whole[1]["privacy"]


def test_a_run_without_noise_says_nothing_of_epsilon(small_run, grid_of, silence):
    lines, summary = finished(grid_of.simulated(3), small_run(), silence)
    assert "privacy" not in summary
    assert "cross-entropy" in lines[-1]["clients"]["pen/0000"]["train"]


def test_real_nodes_withhold_their_evaluation_and_the_run_ends_all_the_same(small_run, grid_of, silence, tmp_path):
    nodes = {i: {"domain": domain, "folder": str(tmp_path / "nodes")} for i, domain in enumerate(("blend", "pen"), 1)}
    settings = small_run({"clients": 2, "dualadapt.personalise.on": True, **NOISE})
    lines, summary = finished(grid_of(nodes), settings, silence)
    assert [line["failures"] for line in lines] == [[]] * len(lines)
    assert summary["accuracy"] == summary["source_only"] == summary["label_free"] == {}
    assert list(summary["privacy"]["epsilon"]) == ["blend/0000", "pen/0000"]
    print_run(Console(file=io.StringIO()), summary, settings.output)


def test_who_joins_late_accounts_for_the_mixture_that_it_joins_by(small_run, grid_of, silence):
    settings = small_run({"rounds": 2, "clients": 1, "simulation.late": "pen", **NOISE})
    lines, summary = finished(grid_of.simulated(2), settings, silence)
    assert lines[-1]["newcomers"]["pen/0000"]["weight"] == 0
    assert summary["privacy"]["epsilon"]["pen/0000"] == pytest.approx(epsilon([Release(0, 1.0, 0.0, 4.0)], 1e-5))
