"""The benchmark of generative models on runs that are there already: every figure, once, and kept."""

import itertools
import json
import sys
from functools import partial

import pytest

from benchmarks import generative
from fmtda.generative.image_quality import train_classifier
from fmtda.server.pooled import run_pooled
from fmtda.server.progress import Lines
from fmtda.server.startup import effective_settings

DRAWN = ("--samples", "70", "--sampler-samples", "70", "--ddim-steps", "5")


@pytest.fixture
def measured(generative_settings_of, tmp_path, monkeypatch):
    """Measures two finished tiny runs, the second in place of a federated one; returns the output folder."""
    monkeypatch.setattr("fmtda.generative.training.HELD_OUT_DRAWS", 1)
    monkeypatch.setattr("benchmarks.generative_measures.train_classifier", partial(train_classifier, steps=3))
    for arm in ("local", "skewed"):
        run = tmp_path / "runs" / f"ddpm-{arm}-seed-0"
        changes = {"strategy": "pooled-data", "output": str(run), "data.target-limit": 80}
        run_pooled(generative_settings_of("ddpm", changes), Lines("loss"))

    def measure():
        words = [
            "--output",
            tmp_path / "out",
            "--runs",
            tmp_path / "runs",
            "--models",
            "ddpm",
            "--arms",
            "local,skewed",
        ]
        monkeypatch.setattr(sys, "argv", ["generative.py", *map(str, words), *DRAWN])
        generative.main()
        return tmp_path / "out"

    return measure


def test_every_figure_is_there_and_measured_once(measured, capsys):
    output = measured()
    results = json.loads((output / "results.json").read_text())
    local, skewed = (results["runs"][f"ddpm-{arm}-seed-0"] for arm in ("local", "skewed"))
    assert local["frechet_distance"] > 0
    assert 0 <= local["confident_share"] <= 1
    assert sum(local["class_shares"]) == pytest.approx(1, abs=1e-3)
    bits = local["bits_per_dimension"]
    assert bits["total"] == pytest.approx(bits["prior"] + bits["transitions"] + bits["decoder"])
    assert {name: each["steps"] for name, each in local["samplers"].items()} == {
        "ancestral": 30,
        "ddim-5, eta 0": 5,
        "ddim-5, eta 1": 5,
    }
    assert "samplers" not in skewed
    assert local["real_against_real"]["halves"] >= 0
    assert results["commit"] and results["versions"]["torch"]
    assert results["equal_steps"].startswith("Each arm of each model")
    assert str(output.parent) not in (output / "results.json").read_text()
    assert (output / "ddpm-local-seed-0.png").exists()
    rows = (output / "table.md").read_text().splitlines()
    assert len(rows) == 4
    assert " 1.00 | " in rows[3]  # the same run under another name is as good as its reference

    capsys.readouterr()
    measured()
    assert capsys.readouterr().out.splitlines() == [
        "ddpm-local-seed-0: measured already",
        "ddpm-skewed-seed-0: measured already",
    ]


def test_an_unknown_arm_is_named_with_those_there_are(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["generative.py", "--output", "out", "--runs", "runs", "--arms", "pooled"])
    with pytest.raises(SystemExit):
        generative.main()
    assert "pooled: allowed are all, local, iid, skewed" in capsys.readouterr().err


@pytest.mark.parametrize("arm", generative.ARMS)
@pytest.mark.parametrize("model", ["ddpm", "ncsn"])
def test_an_arms_settings_are_those_of_its_model(model, arm):
    words = generative.ARMS[arm].words(model)
    pairs = dict(value.split("=") for flag, value in itertools.pairwise(words) if flag == "-c")
    settings = effective_settings({"workload": model, **pairs})
    assert settings.model.colour == ("rgb" if arm.startswith("domains") else "grey")
    assert settings.data.partition == ("dirichlet" if arm == "skewed" else "iid")
