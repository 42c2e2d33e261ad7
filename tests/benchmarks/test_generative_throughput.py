"""The benchmark of throughput: both ways train as many examples, and every model has a bare loop."""

import json
import sys

import pytest
import torch

from benchmarks import generative_throughput
from benchmarks.generative_throughput import bare_loss
from fmtda.generative.registry import MODELS, build
from fmtda.server.startup import effective_settings


def test_a_message_is_compared_with_a_bare_loop(tmp_path, monkeypatch):
    output = tmp_path / "throughput.json"
    words = ["--steps", "1", "--repeats", "2", "--models", "mpgvae", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["generative_throughput.py", *words])
    generative_throughput.main()
    figures = json.loads(output.read_text())["mpgvae"]
    assert (figures["steps"], figures["batch"], len(figures["turns_bare"])) == (1, 128, 2)
    rates = [figures["examples_per_second_ours"], figures["examples_per_second_bare"]]
    assert figures["ratio"] == pytest.approx(rates[0] / rates[1])


@pytest.mark.parametrize("name", list(MODELS))
def test_the_loss_by_hand_is_that_of_the_model(name):
    model = build(name, effective_settings({"workload": name, "output": "/nowhere"}), seed=0)
    shape = (32, 1, 16, 16) if name in ("ddpm", "ncsn") else (32, 9, 9)
    examples = torch.zeros(shape, dtype=torch.uint8 if len(shape) == 4 else torch.int8)
    torch.manual_seed(0)
    values, loss = bare_loss(model, examples)
    own = [model.loss(examples, torch.Generator().manual_seed(seed)).item() for seed in range(8)]
    assert sum(loss(values).item() for _ in range(8)) / 8 == pytest.approx(sum(own) / 8, rel=0.1)
