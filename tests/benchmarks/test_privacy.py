"""The measurement of privacy: cells in small, and attacks where it is known what they must find."""

import dataclasses
import json
import sys

import pytest
import torch

from benchmarks import privacy, privacy_attacks
from benchmarks.privacy_attacks import Round, membership, reconstruction
from fmtda.adaptation.labelled_features import feature_rows
from fmtda.adaptation.mixture import Mixture
from fmtda.adaptation.registry import build
from fmtda.strategies.dualadapt.parameters import DualAdaptParameters
from tests.conftest import blink


def round_of(message, network, means):
    """A round whose F_l is F_g and whose mixture has these means."""
    source_mixture = privacy_attacks._mixture(message.content["source_mixture"])
    count = len(means)
    mixture = Mixture(torch.full((count,), 1 / count), means, torch.full_like(means, 1e-6), source_mixture.quantiles)
    return Round(network.state_dict(), source_mixture, network.classifier.state_dict(), mixture)


@pytest.fixture
def attacked(settings_of, client_of, message_to):
    """A client, its features under the network that it is sent, that network, and the message."""
    client = dataclasses.replace(client_of(settings_of({"preset": "paper"}), train=40), simulated=True)
    network = build(client.settings.network.name, 10, (3, 32, 32), 0).eval()
    inputs, places = client.inputs(client.train), client.settings.own(DualAdaptParameters).places
    features = feature_rows(network, inputs, places, client.generator("places"))
    return client, features, network, message_to(client)


def test_means_on_examples_are_found_at_no_distance_and_counted_below_the_floor(attacked):
    client, features, network, message = attacked
    found = reconstruction(round_of(message, network, features[:8]), client, floor=20)
    assert found["components"] == found["below_floor"] == 8
    assert found["nearest"] == pytest.approx(0, abs=1e-3)
    assert found["source_median"] > 0.1
    far = reconstruction(round_of(message, network, features[:2] + 100), client, floor=0)
    assert far["nearest"] > 10 and far["below_floor"] == 0


def test_a_mixture_on_its_members_gives_them_away_and_an_unmoved_classifier_nobody(attacked):
    client, features, network, message = attacked
    members = torch.arange(40) < 20
    found = membership([round_of(message, network, features[:20])], client, members, 0, torch.Generator())
    assert found["mixture"]["auc"] > 0.95
    assert [found[name]["auc"] for name in ("loss", "entropy", "gradient")] == [0.5] * 3
    assert "likelihood ratio" not in found


@pytest.mark.usefixtures("few_source_examples")
def test_cells_are_measured_once_tabulated_and_drawn(tmp_path, monkeypatch, capsys):
    few = {"data.source-limit": 60, "inputs.randomise": "false", "inputs.scenery": "false", "data.targets": "pen"}
    pairs = [word for key, value in blink(few).items() for word in ("-c", f"{key}={value}")]
    words = ["privacy", "--output", str(tmp_path), "--members", "30", "--shadows", "2", "--rounds", "1"]
    monkeypatch.setattr(privacy, "FLOOR", 15)
    monkeypatch.setattr(sys, "argv", [*words, "--only", "off,light-floor", *pairs])
    privacy.main()
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["cells"]) == ["off", "light-floor"]
    assert str(tmp_path) not in json.dumps(results)
    off, light = results["cells"].values()
    assert off["epsilon"] is None and 0 < light["epsilon"] < 1000
    for cell in (off, light):
        assert set(cell["accuracy"]) == set(cell["source_only"]) == {"pen"}
        assert set(cell["membership"]["pen/0000"]) == set(privacy.ATTACKS)
        assert cell["members"] == 30 and cell["failures"] == 0
    assert light["messages"]["train"]["metrics"] == ["epsilon", "num-examples", "seconds"]
    assert light["messages"]["train"]["arrays"]["classifier/weight"]["shape"] == [10, 128]
    table = (tmp_path / "table.md").read_text()
    assert "| off | - | none |" in table and "| light | 15 |" in table
    assert (tmp_path / "privacy.svg").stat().st_size > 1000

    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("cells/*.json")}
    capsys.readouterr()
    privacy.main()
    assert "cell " not in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("cells/*.json")} == files
