"""The measurement of bad clients: what they send, what it cost the others, and a file that is gone on with."""

import json
import sys

import pytest
import torch

from benchmarks import bad_clients
from benchmarks.bad_clients import ATTACKS, falls_of, table
from tests.conftest import blink

pytestmark = pytest.mark.usefixtures("few_source_examples")


def row(seed: int, attack: str, pen: float, blend: float) -> dict:
    """One of 5 with trimming."""
    kind = {"seed": seed, "clients": 5, "bad": 1, "robust_share": 0.2, "attack": attack}
    return {**kind, "accuracy": {"pen": pen, "blend": blend}, "average": (pen + blend) / 2}


ROWS = [row(0, "none", 90, 80), row(0, "random", 87, 82), row(1, "none", 92, 84), row(1, "random", 93, 84)]


def test_what_each_attack_predicts():
    model = {"weight": torch.eye(3), "bias": torch.tensor([0.0, 0.5, 0.0])}
    sent = {name: attack(model, torch.Generator().manual_seed(0)) for name, attack in ATTACKS.items()}
    features = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]])

    def predicted(name: str) -> torch.Tensor:
        return features @ sent[name]["weight"].T + sent[name]["bias"]

    assert predicted("sign-flipped").argmax(dim=1).tolist() == [1, 0]  # what F_g finds least likely
    assert predicted("constant").softmax(dim=1)[:, 0].min() > 0.999
    assert {name: value.shape for name, value in sent["random"].items()} == {"weight": (3, 3), "bias": (3,)}
    assert not torch.equal(sent["random"]["weight"], model["weight"])


def test_falls_are_against_the_same_seed_and_the_table_has_their_mean_and_the_worst():
    assert falls_of(ROWS[1], ROWS) == {"pen": 3, "blend": -2}
    assert falls_of(ROWS[3], ROWS) == {"pen": -1, "blend": 0}
    honest, attacked = table(ROWS).splitlines()[2:]
    assert honest == "| 1 of 5 | 0.2 | none | 2 | 91.0 | 82.0 | 86.5 | 0.0 | 0.0 |"
    assert attacked == "| 1 of 5 | 0.2 | random | 2 | 90.0 | 83.0 | 86.5 | 1.0 | 3.0 |"


def test_rows_that_the_file_holds_are_not_measured_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bad_clients, "SHARES", (0.2,))
    monkeypatch.setattr(bad_clients, "ATTACKS", {"constant": ATTACKS["constant"]})
    output = tmp_path / "new folder" / "bad.json"
    few = {
        "data.target-limit": 40,
        "data.source-limit": 60,
        "inputs.randomise": "false",
        "inputs.scenery": "false",
        "data.targets": "blend,pen",
    }
    pairs = [word for key, value in blink(few).items() for word in ("-c", f"{key}={value}")]
    words = ["bad_clients", "--output", str(output), "--rounds", "1", "--clients", "5", *pairs]
    monkeypatch.setattr(sys, "argv", words)
    bad_clients.main()
    report = json.loads(output.read_text())
    assert [(each["attack"], each["bad"], each["failures"]) for each in report["results"]] == [
        ("none", 1, 0),
        ("constant", 1, 0),
    ]
    assert all(set(each["accuracy"]) == {"blend", "pen"} for each in report["results"])
    assert str(tmp_path) not in json.dumps(report)

    report["results"].pop()
    output.write_text(json.dumps(report))
    capsys.readouterr()
    bad_clients.main()
    measured = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [json.loads(line)["attack"] for line in measured] == ["constant"]

    monkeypatch.setattr(sys, "argv", [*words, "-c", "dualadapt.server-steps=3"])
    with pytest.raises(SystemExit, match="2"):
        bad_clients.main()
    assert f"{output} was measured with" in capsys.readouterr().err
