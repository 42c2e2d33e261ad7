"""The round loop: whoever spoils a reply is left out, and a resumed run equals an unbroken one."""

import json

import pytest
import torch
from flwr.app import ConfigRecord, Error, Message, MetricRecord
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmtda.protocol.records import from_record, to_record
from fmtda.server import checkpoints
from fmtda.server.app import run
from fmtda.server.progress import describe
from fmtda.server.run_directory import WriteError, read_metrics
from fmtda.server.workload import NoClientAnswered
from fmtda.strategies.registry import ADAPTING
from tests.server.compared import same, without_times

pytestmark = pytest.mark.usefixtures("few_source_examples")


@pytest.fixture
def settings(small_run):
    return small_run({"rounds": 2})


def result(directory):
    model = checkpoints.latest(directory.checkpoints).model
    return [without_times(line) for line in directory.metrics()], model


@pytest.mark.parametrize("strategy", ADAPTING)
def test_a_run_depends_neither_on_node_ids_nor_on_the_order_of_replies(strategy, small_run, grid_of, silence, tmp_path):
    settings = small_run({"strategy": strategy, "rounds": 2})
    first = result(run(grid_of.simulated(3), settings, silence))
    again = settings.changed({"output": str(tmp_path / "again")})
    assert same(first, result(run(grid_of.simulated(3, 5000, reverse=True), again, silence)))
    rounds = [(line["round"], line["phase"]) for line in first[0]]
    assert rounds == [(0, "round"), (1, "round"), (2, "round")]
    ends = [
        (f"run directory: {path}", f"look at it with: fmtda report {path}") for path in (settings.output, again.output)
    ]
    assert silence.notes == [note for end in ends for note in end]


def test_a_run_depends_on_its_seed(settings, grid_of, silence, tmp_path):
    settings = settings.changed({"rounds": 1})
    first = result(run(grid_of.simulated(3), settings, silence))
    other = settings.changed({"seed": 1, "output": str(tmp_path / "other")})
    assert not same(first, result(run(grid_of.simulated(3), other, silence)))


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the server catches it."""


@pytest.fixture(scope="module")
def unbroken():
    """The result of the unbroken run that others are compared with; filled by the first of them."""
    return []


@pytest.mark.parametrize("messages", [1, 6, 13, 16, 22])
def test_a_run_that_is_killed_anywhere_and_resumed_equals_an_unbroken_one(
    messages, settings, unbroken, grid_of, silence, tmp_path
):
    settings = settings.changed({"dualadapt.personalise.on": True})
    if not unbroken:
        whole = grid_of.simulated(3)
        unbroken += result(run(whole, settings.changed({"output": str(tmp_path / "unbroken")}), silence))
        # names, two evaluations before round 1, rounds, copies, examples
        assert len(whole.sent) == 3 + 6 + 2 * 6 + 3 + 3

    def kill(sent, honest):
        if len(grid.sent) > messages:
            raise Killed
        return honest

    grid = grid_of.simulated(3, tamper=kill)
    with pytest.raises(Killed):
        run(grid, settings, silence)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"round": 7, "pha')  # what a kill may leave behind
    resumed = run(grid_of.simulated(3, 700), settings.changed({"resume": True}), silence)
    assert same(unbroken, result(resumed))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["accuracy_by_head"] == unbroken[0][-1]["accuracy"]


@pytest.mark.parametrize("messages", [10, 16], ids=["before the first checkpoint of a round", "after it"])
@pytest.mark.parametrize("strategy", ["fed-mcd", "fed-dann"])
def test_what_a_strategy_adds_to_the_model_survives_a_kill(strategy, messages, small_run, grid_of, silence, tmp_path):
    settings = small_run({"strategy": strategy, "rounds": 2})
    unbroken = run(grid_of.simulated(3), settings.changed({"output": str(tmp_path / "unbroken")}), silence)

    def kill(sent, honest):
        if len(grid.sent) > messages:
            raise Killed
        return honest

    grid = grid_of.simulated(3, tamper=kill)
    with pytest.raises(Killed):
        run(grid, settings, silence)
    resumed = run(grid_of.simulated(3, 700), settings.changed({"resume": True}), silence)
    assert same(result(unbroken), result(resumed))


def test_curves_of_earlier_rounds_stay_when_personalising_is_done_again(settings, grid_of, silence):
    settings = settings.changed({"dualadapt.personalise.on": True})
    for each in (settings, settings.changed({"resume": True})):
        directory = run(grid_of.simulated(3), each, silence)
    events = EventAccumulator(str(directory.tensorboard)).Reload()
    curve = next(tag for tag in events.Tags()["scalars"] if tag.startswith("server/"))
    assert [event.step for event in events.Scalars(curve)] == [1, 2]


def test_a_client_that_cant_evaluate_before_the_first_round_is_written_down(settings, grid_of, silence):
    def failing(sent, honest):
        early = sent.metadata.message_type == "evaluate.global"
        if early and not honest.has_error() and honest.content["client"]["name"] == "pen/0000":
            return Message(Error(1, "gone"), reply_to=sent)
        return honest

    directory = run(grid_of.simulated(3, tamper=failing), settings, silence)
    first, *later = directory.metrics()
    assert first["failures"] == ["pen/0000: gone"] * (1 + (first["plain_source_only"] != first["source_only"]))
    assert all(line["failures"] == [] for line in later)
    assert json.loads((directory.path / "summary.json").read_text())["failures"] == len(first["failures"])


@pytest.mark.parametrize("heads", [{"correct-local": 5}, {"correct-personal": 5}])
def test_counts_without_those_of_f_g_end_no_run(heads, settings, grid_of, silence):
    def odd(sent, honest):
        if sent.metadata.message_type.startswith("evaluate") and honest.content["client"]["name"] == "pen/0000":
            honest.content["metrics"] = MetricRecord({"num-examples": 10, **heads})
        return honest

    directory = run(grid_of.simulated(3, tamper=odd), settings.changed({"rounds": 1}), silence)
    summary = json.loads((directory.path / "summary.json").read_text())
    assert "blend" in summary["accuracy"]
    assert ("pen" in summary["accuracy"]) == ("correct-personal" in heads)


def test_a_finished_run_goes_on_for_more_rounds(settings, grid_of, silence, tmp_path):
    unbroken = run(grid_of.simulated(3), settings.changed({"output": str(tmp_path / "unbroken")}), silence)
    run(grid_of.simulated(3), settings.changed({"rounds": 1}), silence)
    assert (tmp_path / "run" / "summary.json").exists()

    def look(sent, honest):
        assert sent.metadata.message_type != "train" or not (tmp_path / "run" / "summary.json").exists()
        return honest

    first_sitting = sum(line["wall_seconds"] for line in read_metrics(tmp_path / "run"))
    resumed = run(grid_of.simulated(3, tamper=look), settings.changed({"resume": True}), silence)
    first, second = result(unbroken), result(resumed)
    assert same(first, second)
    assert json.loads((resumed.path / "summary.json").read_text())["wall_seconds"] > first_sitting > 0


def spoiled(kind):
    """How a client's training reply is spoiled."""

    def spoil(sent, honest):
        if not sent.metadata.message_type.startswith("train") or honest.content["client"]["name"] != "pen/0000":
            return honest
        content = honest.content
        if kind == "silence":
            return None
        if kind == "error":
            return Message(Error(1, "Traceback\nMemoryError: too big"), reply_to=sent)
        if kind == "impostor":
            content["client"] = ConfigRecord({"name": "blend/0000"})
        if kind == "no metrics":
            content["metrics"] = MetricRecord({"seconds": [1.0, 2.0]})
        uploaded = "classifier" if "classifier" in content else "model"
        if kind == "nan":
            arrays = from_record(content[uploaded])
            next(iter(arrays.values())).view(-1)[0] = float("nan")
            content[uploaded] = to_record(arrays)
        if kind == "weightless":
            content["metrics"]["num-examples"] = 0
        if kind == "many numbers":
            content["metrics"]["loss"] = [1.0, 2.0]
        if kind == "another metric":
            content["metrics"]["another"] = 1.0
        if kind == "a metric less":
            del content["metrics"]["seconds"]
        return honest

    return spoil


@pytest.mark.parametrize(
    ("strategy", "kind", "named"),
    [
        ("dualadapt", "silence", "no answer within 0.5 s"),
        ("dualadapt", "error", "MemoryError: too big"),
        ("dualadapt", "impostor", "dropped, calls itself blend/0000 now"),
        ("dualadapt", "no metrics", "dropped, metric seconds holds 2 numbers, expected one"),
        ("dualadapt", "nan", "dropped, weight has values that are not finite"),
        ("fedavg-self-training", "nan", "dropped, feature_extractor.1.weight has values that are not finite"),
        ("fedavg-self-training", "weightless", "dropped, num-examples is 0"),
        ("fedavg-self-training", "many numbers", "dropped, metric loss holds 2 numbers, expected one"),
        ("fedavg-self-training", "another metric", "dropped, metric another is not declared; what is: confident, loss"),
    ],
)
def test_a_round_goes_on_without_a_client_that_spoils_its_reply(strategy, kind, named, small_run, grid_of, silence):
    settings = small_run({"strategy": strategy, "timeout": 0.5})
    directory = run(grid_of.simulated(3, tamper=spoiled(kind)), settings, silence)
    line = directory.metrics()[-1]
    assert len(line["failures"]) == 1
    assert line["failures"][0].startswith(f"pen/0000: {named}")
    assert line["clients"]["pen/0000"]["train"] == {}
    assert line["clients"]["blend/0000"]["train"]["num-examples"] > 0
    assert any(line["failures"][0] in note for note in silence.notes)
    assert json.loads((directory.path / "summary.json").read_text())["failures"] == 1


def test_a_client_of_another_version_with_fewer_metrics_is_averaged_too(small_run, grid_of, silence, tmp_path):
    settings = small_run({"strategy": "fedavg-self-training"})
    as_all = run(grid_of.simulated(3), settings.changed({"output": str(tmp_path / "as all")}), silence)
    other = run(grid_of.simulated(3, tamper=spoiled("a metric less")), settings, silence)
    line = other.metrics()[-1]
    assert line["failures"] == []
    assert line["train"].keys() == as_all.metrics()[-1]["train"].keys() - {"seconds"}
    model, expected = (checkpoints.latest(each.checkpoints).model for each in (other, as_all))
    assert all(torch.equal(model[name], expected[name]) for name in expected)


def test_metrics_that_cannot_be_written_stop_the_run_with_a_reason(settings, grid_of, silence, tmp_path):
    lines = tmp_path / "run" / "metrics.jsonl"

    def obstruct(sent, honest):
        if sent.metadata.message_type == "train" and not lines.is_dir():
            lines.rename(tmp_path / "kept.jsonl")
            lines.mkdir()
        return honest

    with pytest.raises(WriteError, match=r"can't write the metrics of round 1 to .*run"):
        run(grid_of.simulated(3, tamper=obstruct), settings, silence)
    lines.rmdir()
    (tmp_path / "kept.jsonl").rename(lines)
    resumed = run(grid_of.simulated(3), settings.changed({"resume": True}), silence)
    assert [line["round"] for line in resumed.metrics()] == [0, 1, 2]


def test_a_round_without_one_usable_reply_ends_the_run_and_keeps_what_was_reached(settings, grid_of, silence):
    def late_silence(sent, honest):
        config = sent.content["config"]
        return None if sent.metadata.message_type == "train" and config["server-round"] == 2 else honest

    with pytest.raises(NoClientAnswered, match="round 2: no client's training could be used: blend/0000: no answer"):
        run(grid_of.simulated(3, tamper=late_silence), settings.changed({"timeout": 0.5}), silence)
    resumed = run(grid_of.simulated(3), settings.changed({"resume": True}), silence)
    assert [line["round"] for line in resumed.metrics()] == [0, 1, 2]


def test_target_labels_are_asked_for_nowhere_but_in_evaluation(settings, grid_of, silence):
    grid = grid_of.simulated(3)
    directory = run(grid, settings, silence)
    for line in read_metrics(directory.path)[1:]:
        for client in line["clients"].values():
            assert not [key for key in client["train"] if "correct" in key]
            assert client["evaluate"]["correct-mean"] <= client["evaluate"]["num-examples"]


def test_only_the_cohort_of_a_round_trains_and_everybody_evaluates(settings, grid_of, silence):
    grid = grid_of.simulated(3)
    directory = run(grid, settings.changed({"fraction": 0.34}), silence)
    for line in directory.metrics()[1:]:
        assert len([client for client in line["clients"].values() if client["up_training"]]) == 1
        assert len([client for client in line["clients"].values() if client["evaluate"]]) == 3


def test_fewer_evaluations_change_neither_the_model_nor_the_last_accuracy(settings, grid_of, silence, tmp_path):
    always = run(grid_of.simulated(3), settings.changed({"rounds": 3, "output": str(tmp_path / "always")}), silence)
    settings = settings.changed({"rounds": 3, "evaluate-every": 2, "output": str(tmp_path / "seldom")})
    grid = grid_of.simulated(3)
    seldom = run(grid, settings, silence)
    assert [line["evaluated"] for line in seldom.metrics()[1:]] == [False, True, True]
    assert [line["accuracy"] != {} for line in seldom.metrics()[1:]] == [False, True, True]
    assert seldom.metrics()[-1]["accuracy"] == always.metrics()[-1]["accuracy"]
    models = [checkpoints.latest(directory.checkpoints).model for directory in (always, seldom)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[1])
    summaries = [json.loads((directory.path / "summary.json").read_text()) for directory in (always, seldom)]
    down = [summary["downlink_bytes_per_client_round"] for summary in summaries]
    assert down[0] == down[1]  # a round's cost is that of one with an evaluation
    assert describe(None, "accuracy") == "not evaluated"


def test_a_federation_whose_clients_all_left_ends_with_a_reason(settings, grid_of, silence):
    grid = grid_of.simulated(3)
    asked = grid.get_node_ids

    def gone_after_the_first_evaluation():
        return [] if any(message.metadata.message_type == "evaluate.global" for message in grid.sent) else asked()

    grid.get_node_ids = gone_after_the_first_evaluation
    with pytest.raises(NoClientAnswered, match="round 1: no client is there any more"):
        run(grid, settings, silence)


def test_a_federation_of_one_client_works(settings, grid_of, silence):
    directory = run(grid_of.simulated(1), settings.changed({"clients": 1, "data.targets": "pen"}), silence)
    assert list(directory.metrics()[-1]["accuracy"]) == ["pen"]
