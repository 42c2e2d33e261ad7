"""Generative federations without a process: repeatable, resumable with every strategy, and nothing bad gets in."""

import json
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from flwr.app import Context, RecordDict
from PIL import Image

from fmtda.generative.ddpm import DDPM
from fmtda.generative.image_quality import train_classifier
from fmtda.protocol.records import from_record, to_record
from fmtda.protocol.tables import SettingsError
from fmtda.server import checkpoints
from fmtda.server.app import app, run
from fmtda.server.checkpoints import Checkpoint
from fmtda.server.generative import Results
from fmtda.server.workload import NoClientAnswered, RunStopped


@pytest.fixture
def settings(generative_settings_of, tmp_path):
    return small(generative_settings_of, tmp_path)


def small(generative_settings_of, tmp_path, changes=None):
    """Settings of two clients of few examples; a dictionary of dotted keys changes some."""
    few = {"clients": 2, "data.target-limit": 40, "output": str(tmp_path / "run")}
    return generative_settings_of("ddpm", {**few, **(changes or {})})


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if "seconds" not in k}
    return value


def result(directory):
    checkpoint = checkpoints.latest(directory.checkpoints)
    pictures = {path.name: path.read_bytes() for path in directory.samples.iterdir()}
    return [without_times(line) for line in directory.metrics()], checkpoint, pictures


def same(first, second):
    (lines, checkpoint, pictures), (other_lines, other, other_pictures) = first, second
    assert lines == other_lines
    assert pictures == other_pictures
    for part, others in ((checkpoint.model, other.model), (checkpoint.state, other.state)):
        assert list(part) == list(others)
        assert all(torch.equal(part[name], others[name]) for name in part)
    return True


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the server catches it."""


@pytest.mark.parametrize(
    ("strategy", "moments"),
    [("fedavg", "averaged"), ("fedprox", "averaged"), ("fedavg", "fresh"), ("fedavgm", "fresh"), ("fedadam", "fresh")],
)
def test_a_run_killed_between_rounds_and_resumed_equals_an_unbroken_one(
    strategy, moments, generative_settings_of, grid_of, silence, tmp_path
):
    changes = {"strategy": strategy, "training.moments": moments, "rounds": 3, "samples.every": 2}
    settings = small(generative_settings_of, tmp_path, changes)
    unbroken = result(run(grid_of.simulated(2), settings.changed({"output": str(tmp_path / "unbroken")}), silence))

    def kill(sent, honest):
        if sent.content["config"]["server-round"] == 3:
            raise Killed
        return honest

    with pytest.raises(Killed):
        run(grid_of.simulated(2, tamper=kill), settings, silence)
    resumed = run(grid_of.simulated(2, 700, reverse=True), settings.changed({"resume": True}), silence)
    assert same(unbroken, result(resumed))
    assert "continuing after round 2" in silence.notes
    assert set(unbroken[2]) == {"round-000002.png", "round-000003.png"}


def test_a_run_depends_on_its_seed_and_neither_on_node_ids_nor_on_the_order_of_replies(
    settings, grid_of, silence, tmp_path
):
    settings = settings.changed({"rounds": 1})
    first = result(run(grid_of.simulated(2), settings, silence))
    again = settings.changed({"output": str(tmp_path / "again")})
    assert same(first, result(run(grid_of.simulated(2, 5000, reverse=True), again, silence)))
    other = settings.changed({"output": str(tmp_path / "other"), "seed": 1})
    assert result(run(grid_of.simulated(2), other, silence))[0] != first[0]


@pytest.mark.parametrize("workload", ["ddpm", "ncsn"])
def test_one_domain_a_client_in_colour_and_what_a_run_leaves_behind(
    workload, generative_settings_of, grid_of, silence, tmp_path, monkeypatch
):
    monkeypatch.setattr("fmtda.generative.images.train_classifier", partial(train_classifier, steps=3))
    settings = generative_settings_of(
        workload,
        {
            "rounds": 1,
            "data.targets": "blend,pen",
            "clients": 2,
            f"{workload}.colour": "rgb",
            "samples.quality": 70,
            "output": str(tmp_path / "run"),
        },
    )
    directory = run(grid_of.simulated(2), settings, silence)
    summary = json.loads((directory.path / "summary.json").read_text())
    assert set(summary["loss"]) == {"blend", "pen"}
    assert summary["average_loss"] == pytest.approx(sum(summary["loss"].values()) / 2)
    assert (summary["workload"], summary["strategy"], summary["gradient_steps"]) == (workload, "fedavg", 2)
    assert summary["failures"] == 0
    assert summary["uplink_bytes_per_client_round"] > 4 * summary["parameters"]
    assert summary["quality"]["samples"] == 70
    assert math.isfinite(summary["quality"]["frechet_distance"])
    assert sum(summary["quality"]["class_shares"]) == pytest.approx(1)
    assert Image.open(directory.samples / "round-000001.png").size == (2 * 9 * 8 + 8, 2 * 9 * 8 + 8)
    assert any(directory.tensorboard.iterdir())


@pytest.mark.parametrize("workload", ["graph-nvp", "mpgvae"])
def test_molecules_have_as_many_clients_as_was_asked_for(workload, generative_settings_of, grid_of, silence, tmp_path):
    settings = generative_settings_of(
        workload, {"rounds": 1, "clients": 2, "data.target-limit": 40, "output": str(tmp_path / "run")}
    )
    directory = run(grid_of.simulated(settings.supernodes), settings, silence)
    (line,) = directory.metrics()
    assert sorted(line["clients"]) == settings.simulated_names(2)
    assert json.loads((directory.path / "summary.json").read_text())["failures"] == 0


def test_many_rounds_weigh_in_the_average_as_its_decay_says(settings):
    results = Results(settings.changed({"training.ema-decay": 0.5}))
    for server_round, value in enumerate([1.0, 10.0, 100.0], start=1):
        results.take_in(server_round, {"weight": torch.tensor([value])})
    assert results.average["weight"].item() == pytest.approx((0.25 * 1 + 0.5 * 10 + 100) / 1.75)


def test_without_decay_the_average_is_the_model(settings):
    results = Results(settings.changed({"training.ema-decay": 0}))
    for server_round, value in enumerate([1.0, 10.0], start=1):
        results.take_in(server_round, {"weight": torch.tensor([value])})
    assert results.average["weight"].item() == 10.0


def test_the_clients_evaluate_the_average(settings, grid_of, silence):
    grid = grid_of.simulated(2)
    directory = run(grid, settings.changed({"training.ema-decay": 0.9}), silence)
    evaluated = [from_record(m.content["model"]) for m in grid.sent if m.metadata.message_type == "evaluate"]
    average = {name: value for name, value in checkpoints.latest(directory.checkpoints).state.items()}
    assert all(torch.equal(value, average[f"average.{name}"]) for name, value in evaluated[-1].items())
    assert not all(torch.equal(v, evaluated[-1][n]) for n, v in checkpoints.latest(directory.checkpoints).model.items())


def test_a_client_whose_training_diverged_is_named_and_left_out(settings, grid_of, silence):
    def poison(sent, honest):
        if sent.metadata.message_type == "train" and honest.content["client"]["name"] == "handwritten/0001":
            arrays = from_record(honest.content["model"])
            next(iter(arrays.values())).view(-1)[0] = math.nan
            honest.content["model"] = to_record(arrays)
        return honest

    directory = run(grid_of.simulated(2, tamper=poison), settings.changed({"rounds": 1}), silence)
    (failure,) = directory.metrics()[-1]["failures"]
    assert failure.startswith("handwritten/0001: dropped, ")
    assert "not finite" in failure


def test_clients_that_all_diverge_end_the_run_and_it_can_be_resumed(settings, grid_of, silence, monkeypatch):
    honest = DDPM.loss
    monkeypatch.setattr(DDPM, "loss", lambda model, batch, generator: honest(model, batch, generator) * math.nan)
    with pytest.raises(NoClientAnswered, match="handwritten/0000: .*the loss is nan at step 1"):
        run(grid_of.simulated(2), settings, silence)
    monkeypatch.undo()
    directory = run(grid_of.simulated(2), settings.changed({"resume": True}), silence)
    assert [line["round"] for line in directory.metrics()] == [1, 2]


def test_a_server_step_that_leaves_the_finite_numbers_stops_before_it_is_written_down(
    generative_settings_of, grid_of, silence, tmp_path
):
    changes = {"strategy": "fedadam", "fedadam.learning-rate": 1e300}
    settings = small(generative_settings_of, tmp_path, changes)
    with pytest.raises(RunStopped, match="round 1: the new model is not finite .* take smaller steps"):
        run(grid_of.simulated(2), settings, silence)
    assert checkpoints.latest(Path(settings.output) / "checkpoints") is None


def test_a_second_moment_below_zero_is_dropped(settings, grid_of, silence):
    def lie(sent, honest):
        if sent.metadata.message_type == "train" and honest.content["client"]["name"] == "handwritten/0001":
            arrays = from_record(honest.content["model"])
            name = next(name for name in arrays if name.endswith(".exp_avg_sq"))
            honest.content["model"] = to_record({**arrays, name: arrays[name] - 1})
        return honest

    directory = run(grid_of.simulated(2, tamper=lie), settings.changed({"rounds": 1}), silence)
    (failure,) = directory.metrics()[-1]["failures"]
    assert "handwritten/0001: dropped, optimiser." in failure
    assert failure.endswith("has negative values: the second moment of an Adam has none")


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"num-examples": 10, "loss": math.inf, "seconds": 1.0}, "metric loss is not finite"),
        ({"num-examples": 10, "seconds": 1.0}, "loss is missing"),
        ({"num-examples": -1, "loss": 1.0, "seconds": 1.0}, "num-examples is -1"),
    ],
)
def test_an_impossible_evaluation_is_dropped(metrics, said, settings, grid_of, silence):
    def lie(sent, honest):
        if sent.metadata.message_type == "evaluate" and honest.content["client"]["name"] == "handwritten/0001":
            honest.content["metrics"] = type(honest.content["metrics"])(metrics)
        return honest

    directory = run(grid_of.simulated(2, tamper=lie), settings.changed({"rounds": 1}), silence)
    (failure,) = directory.metrics()[-1]["failures"]
    assert failure.startswith(f"handwritten/0001: dropped, {said}")


def test_a_checkpoint_of_another_model_is_refused(settings, generative_settings_of):
    results = Results(settings)
    model = results.model.state_dict()
    with pytest.raises(SettingsError, match="workload=ddpm: the checkpoint of round 2 is of ncsn"):
        results.restore(Checkpoint(2, model, {}, "ncsn"))
    wider = Results(generative_settings_of("ddpm", {"ddpm.width": 16})).model.state_dict()
    with pytest.raises(SettingsError, match="round 2 holds no ddpm of these settings: .* is .*, expected"):
        results.restore(Checkpoint(2, wider, {}, "ddpm"))


def test_a_cosine_schedule_fixes_the_number_of_rounds(settings, grid_of, silence):
    settings = settings.changed({"rounds": 1, "training.schedule": "cosine"})
    run(grid_of.simulated(2), settings, silence)
    with pytest.raises(SettingsError, match="rounds=2: .* what a round does depends on it"):
        run(grid_of.simulated(2), settings.changed({"rounds": 2, "resume": True}), silence)


def test_more_rounds_equal_a_run_that_was_that_long_from_the_start(settings, grid_of, silence, tmp_path):
    settings = settings.changed({"samples.every": 1, "training.schedule": "constant"})
    unbroken = result(run(grid_of.simulated(2), settings.changed({"output": str(tmp_path / "long")}), silence))
    run(grid_of.simulated(2), settings.changed({"rounds": 1}), silence)
    assert same(unbroken, result(run(grid_of.simulated(2), settings.changed({"resume": True}), silence)))


def test_data_without_labels_leave_the_quality_unmeasured_with_a_note(settings, grid_of, silence, monkeypatch):
    def unlabelled(settings):
        return torch.zeros(30, 1, 8, 8, dtype=torch.uint8), torch.full((30,), -1)

    monkeypatch.setattr("fmtda.server.generative.pooled_examples", unlabelled)
    directory = run(grid_of.simulated(2), settings.changed({"rounds": 1, "samples.quality": 4}), silence)
    assert json.loads((directory.path / "summary.json").read_text())["quality"] is None
    assert any(note.startswith("quality is not measured: 0 labelled pictures") for note in silence.notes)


def test_flowers_own_way_in_refuses_the_strategy_that_is_no_federation(settings, grid_of):
    config = {"workload": "ddpm", "strategy": "pooled-data", "output": settings.output}
    with pytest.raises(SettingsError, match="strategy=pooled-data: .* run it with fmtda generate --local"):
        app(grid_of.simulated(2), Context(1, 1, {}, RecordDict(), config))
