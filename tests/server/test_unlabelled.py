"""Clients without labels: they report what can be told without one, and everything that shows a run copes."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from fmtda.adaptation.scores import LABEL_FREE
from fmtda.face.run_table import print_run
from fmtda.server.app import run
from fmtda.server.startup import effective_settings
from fmtda.server.trackers import scalars


@pytest.fixture
def settings(tmp_path):
    """Feature vectors of a labelled source, a labelled target `known` and an unlabelled one, `clinic`."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(3, 8))
    for domain, shift in {"source": 0.0, "known": 0.5, "clinic": 1.0}.items():
        labels = np.arange(90) % 3
        features = centres[labels] + shift + 0.3 * random.normal(size=(90, 8))
        known = {} if domain == "clinic" else {"labels": labels}
        np.savez(tmp_path / f"{domain}.npz", features=features.astype(np.float32), **known)

    def make(targets, more=None):
        few = {"server-steps": 2, "client-steps": 3, "components": 2, "self-training.steps": 2, "personalise.steps": 2}
        few = {f"dualadapt.{key}": value for key, value in few.items()}
        few |= {"pretraining.steps": 5, "pretraining.plain-steps": 2, "server-threads": 1}
        few |= {"data.name": "feature-vectors", "data.dir": str(tmp_path), "data.source": "source"}
        return effective_settings(
            {**few, "data.targets": targets, "rounds": 1, "output": str(tmp_path / "run"), **(more or {})}
        )

    return make


def finished(settings, grid_of, silence):
    directory = run(grid_of.simulated(settings.clients), settings, silence)
    summary = json.loads((directory.path / "summary.json").read_text())
    text = io.StringIO()
    print_run(Console(file=text, width=160), summary, directory.path)
    return directory.metrics(), summary, text.getvalue()


def test_a_client_without_labels_stands_beside_one_that_has_them(settings, grid_of, silence):
    lines, summary, printed = finished(settings("clinic,known"), grid_of, silence)
    assert lines[-1]["failures"] == []
    assert list(lines[-1]["accuracy"]) == list(summary["accuracy"]) == ["known"]
    assert summary["average_accuracy"] == summary["accuracy"]["known"]
    told = lines[-1]["clients"]["clinic/0000"]["evaluate"]
    assert set(told) == {"num-examples", *LABEL_FREE}
    assert summary["label_free"]["clinic"] == {key: told[key] for key in LABEL_FREE}
    assert {f"{key}/clinic" for key in LABEL_FREE} <= {name for name, _ in scalars(lines[-1])}
    without = next(line for line in printed.splitlines() if "clinic" in line)
    assert f"{told['entropy']:.3g}" in without
    assert "known" in printed


@pytest.mark.parametrize("personalise", [False, True])
def test_a_run_in_which_nobody_has_labels_ends_with_what_can_be_told(personalise, settings, grid_of, silence):
    lines, summary, printed = finished(settings("clinic", {"dualadapt.personalise.on": personalise}), grid_of, silence)
    assert summary["failures"] == 0
    assert summary["accuracy"] == summary["source_only"] == {}
    assert summary["average_accuracy"] is None
    assert "percent" not in printed
    assert "agreement of F_g and F_l" in printed
    assert set(summary["label_free"]["clinic"]) >= {"entropy"}
