"""The benchmark of federated molecules on runs that are there already: each beside its reference, and bad names."""

import json
import sys

import pytest

from benchmarks import federated_molecules
from fmtda.server.pooled import run_pooled
from fmtda.server.progress import Lines
from fmtda.server.startup import effective_settings

TINY = {"rounds": 1, "training.steps": 2, "training.batch": 8, "data.target-limit": 40}
TINY |= {"samples.count": 2, "samples.quality": 20}
TINY |= {"mpgvae.node-width": 8, "mpgvae.message-width": 4, "mpgvae.latent": 4, "mpgvae.message-rounds": 1}


def measured(monkeypatch, tmp_path, *more):
    places = ["--output", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", ["federated_molecules.py", *places, *more])
    federated_molecules.main()


def test_an_arm_stands_beside_its_reference(tmp_path, monkeypatch):
    for arm in ("local", "iid"):
        run = tmp_path / "runs" / f"mpgvae-{arm}-seed-0"
        run_pooled(
            effective_settings({"workload": "mpgvae", "strategy": "pooled-data", "output": str(run), **TINY}),
            Lines("loss"),
        )
    measured(monkeypatch, tmp_path, "--models", "mpgvae", "--arms", "local,iid")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    local, iid = results["runs"].values()
    assert (local["arm"], iid["arm"]) == ("local", "iid") and local["quality"] == iid["quality"]
    assert local["gradient_steps"] == 2 and "--local" in local["command"] and "data.dir" not in local["settings"]
    rows = (tmp_path / "out" / "table.md").read_text().splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == ["mpgvae-local-seed-0", "mpgvae-iid-seed-0"]


def test_an_unknown_name_is_refused_with_those_there_are(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        measured(monkeypatch, tmp_path, "--models", "mpgvae,glow")
    assert "glow: allowed are graph-nvp, mpgvae" in capsys.readouterr().err
