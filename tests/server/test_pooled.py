"""The reference on pooled data: the same run directory, resumable, and nobody else's examples."""

import json
import math

import pytest
import torch

from fmtda.clients.identity import load_share
from fmtda.generative.ddpm import DDPM
from fmtda.generative.registry import MODELS
from fmtda.protocol.client_names import client_names
from fmtda.server import checkpoints
from fmtda.server.pooled import run_pooled
from fmtda.server.pooled_data import held_out_by_client, pooled_examples
from fmtda.server.run_directory import WriteError
from fmtda.server.workload import RunStopped


@pytest.fixture
def settings(generative_settings_of, tmp_path):
    return generative_settings_of(
        "ddpm", {"strategy": "pooled-data", "data.target-limit": 40, "clients": 3, "output": str(tmp_path / "run")}
    )


def result(directory):
    lines = [{k: v for k, v in line.items() if "seconds" not in k} for line in directory.metrics()]
    return lines, checkpoints.latest(directory.checkpoints)


def same(first, second):
    (lines, checkpoint), (others, other) = first, second
    assert lines == others
    for part, also in ((checkpoint.model, other.model), (checkpoint.state, other.state)):
        assert part.keys() == also.keys()
        assert all(torch.equal(part[name], also[name]) for name in part)
    return True


@pytest.mark.parametrize(("part", "named"), [("metrics.jsonl", "metrics"), ("samples", "samples")])
def test_what_cant_be_written_is_named_and_the_run_goes_on_from_its_last_round(
    part, named, settings, silence, tmp_path, monkeypatch
):
    settings = settings.changed({"rounds": 2, "samples.every": 1})
    unbroken = result(run_pooled(settings.changed({"output": str(tmp_path / "unbroken")}), silence))
    write = checkpoints.write

    def obstruct(*words, **more):
        write(*words, **more)
        (tmp_path / "run" / part).rename(tmp_path / "kept")
        (tmp_path / "run" / part).mkdir() if part.endswith("jsonl") else (tmp_path / "run" / part).write_text("")

    monkeypatch.setattr(checkpoints, "write", obstruct)
    with pytest.raises(WriteError, match=f"can't write the {named} of round 2 to .*; make room"):
        run_pooled(settings, silence)
    monkeypatch.setattr(checkpoints, "write", write)
    obstacle = tmp_path / "run" / part
    obstacle.rmdir() if obstacle.is_dir() else obstacle.unlink()
    (tmp_path / "kept").rename(obstacle)
    assert same(unbroken, result(run_pooled(settings.changed({"resume": True}), silence)))


@pytest.mark.parametrize("partition", ["iid", "dirichlet"])
def test_the_pool_is_what_the_clients_hold_together(partition, generative_settings_of):
    settings = generative_settings_of(
        "ddpm",
        {
            "data.targets": "blend,pen",
            "data.target-limit": 60,
            "clients": 5,
            "data.partition": partition,
            "ddpm.colour": "rgb",
        },
    )
    kind = MODELS["ddpm"].kind
    names = client_names(settings.target_domains, settings.clients)
    shares = [3, 2]
    trained, held_out = {}, {}
    for name in names:
        train, test = load_share(settings, name, shares[settings.target_domains.index(name.split("/")[0])])
        trained[name], held_out[name] = (kind.examples(part.inputs, settings) for part in (train, test))
    pooled, labels = pooled_examples(settings)
    assert rows(pooled) == rows(torch.cat(list(trained.values())))
    assert len(labels) == len(pooled) and labels.min() >= 0
    ours = held_out_by_client(settings)
    assert all(torch.equal(ours[name], held_out[name]) for name in names)


def rows(examples):
    return sorted(example.numpy().tobytes() for example in examples)


def test_a_run_has_the_files_of_a_federated_one(settings, silence):
    directory = run_pooled(settings, silence)
    assert {path.name for path in directory.path.iterdir()} == {
        ".lock", "config.toml", "metrics.jsonl", "summary.json", "checkpoints", "samples", "tensorboard"
    }  # fmt: skip
    summary = json.loads((directory.path / "summary.json").read_text())
    assert (summary["strategy"], summary["gradient_steps"]) == ("pooled-data", 4)
    assert summary["uplink_bytes_per_client_round"] is None
    assert set(summary["loss"]) == {"handwritten"}
    assert (directory.samples / "round-000002.png").exists()


@pytest.mark.parametrize("stopped_in", [1, 2, 3])
def test_a_run_that_is_interrupted_and_resumed_equals_an_unbroken_one(stopped_in, settings, silence, tmp_path):
    settings = settings.changed({"rounds": 3})
    unbroken = result(run_pooled(settings.changed({"output": str(tmp_path / "unbroken")}), silence))
    steps = []

    class Impatient(type(silence)):
        def advance(self, done):
            steps.append(done)
            if len(steps) == stopped_in * settings.training.steps:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_pooled(settings, Impatient())
    assert same(unbroken, result(run_pooled(settings.changed({"resume": True}), silence)))


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_round(settings, silence, monkeypatch):
    honest, calls = DDPM.loss, []

    def poisoned(model, batch, generator):
        calls.append(model.training)
        return honest(model, batch, generator) * (math.nan if sum(calls) > 3 else 1)

    monkeypatch.setattr(DDPM, "loss", poisoned)
    with pytest.raises(RunStopped, match="round 2: the loss is nan at step 2"):
        run_pooled(settings, silence)
    monkeypatch.undo()
    directory = run_pooled(settings.changed({"resume": True}), silence)
    assert [line["round"] for line in directory.metrics()] == [1, 2]
