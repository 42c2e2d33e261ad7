"""The ClientApp: each kind of message reaches its work, through Flower's own dispatch."""

import pytest
import torch
from flwr.app import Context, Message, RecordDict

from fmtda.adaptation.mixture import fit
from fmtda.adaptation.registry import build
from fmtda.clients.app import app
from fmtda.protocol.records import check_records, config_record, sender, to_record
from fmtda.strategies.dualadapt.client import DualAdapt
from fmtda.strategies.registry import algorithms

WITH_MIXTURE = ("train", "query.join")


@pytest.fixture
def ask(tmp_path, settings_of):
    """Send one message to client pen/0000 of a simulation and return its reply's content."""

    def send(message_type, changes=None):
        few = {"data.targets": "blend,pen", "clients": 4, "data.target-limit": 40, "output": str(tmp_path)}
        settings = settings_of({**few, **(changes or {})})
        network = build("small-cnn", 10, (3, 32, 32), 0)
        mixture = fit(torch.rand(80, 128, generator=torch.Generator().manual_seed(0)), 2, 0)
        records = {"config": config_record(settings, 1)}
        if message_type != "query":
            records["model"] = to_record(network.state_dict())
        if message_type in WITH_MIXTURE:
            records["source_mixture"] = to_record(mixture.arrays())
        if message_type == "query.illustrate":
            records["pretrained"] = to_record(build("small-cnn", 10, (3, 32, 32), 1).state_dict())
        message = Message(RecordDict(records), dst_node_id=1, message_type=message_type)
        node_config = {"partition-id": 1, "num-partitions": 4}
        context = Context(run_id=1, node_id=1, node_config=node_config, state=RecordDict(), run_config={})
        content = app(message, context).content
        assert not context.state  # nothing may depend on it: a resumed run finds it empty
        return content

    return send


def test_a_query_is_answered_with_name_and_sizes_and_without_the_model(ask):
    content = ask("query")
    assert sender(content) == "pen/0000"
    assert dict(content["metrics"]) == {"train-examples": 20, "test-examples": 75, "shares-examples": 1}


@pytest.mark.parametrize(
    ("strategy", "uploaded"),
    [("dualadapt", ("classifier", "mixture")), ("fedavg-self-training", ("model",))],
)
def test_training_follows_the_strategy(ask, strategy, uploaded):
    content = ask("train", {"strategy": strategy})
    check_records(content, *uploaded)
    assert content["metrics"]["num-examples"] == 20


def test_who_joins_is_asked_for_its_mixture(ask):
    check_records(ask("query.join"), "mixture")


def test_who_shows_examples_uploads_them_and_nothing_else(ask):
    check_records(ask("query.illustrate"), "illustration")


def test_personalising_and_evaluating_upload_no_arrays(ask):
    personalised = ask("train.personalise", {"dualadapt.personalise.on": True})
    check_records(personalised)
    assert 0 <= personalised["metrics"]["correct-personal"] <= 75
    check_records(ask("evaluate"))


@pytest.mark.parametrize("strategy", [each.name for each in algorithms("adaptation")])
def test_a_model_is_evaluated_as_it_came_under_every_strategy(ask, strategy):
    reference = ask("evaluate", {"strategy": "source-only", "inputs.standardise": False})["metrics"]
    metrics = ask("evaluate.global", {"strategy": strategy, "inputs.standardise": False})["metrics"]
    for each in (reference, metrics):
        del each["seconds"]
    assert dict(metrics) == dict(reference)
    assert [key for key in metrics if key.startswith("correct")] == ["correct-global"]


@pytest.mark.parametrize(
    ("message_type", "said"),
    [
        ("train", "source-only: clients don't train in this algorithm"),
        ("train.personalise", "source-only: clients have no copy of their own"),
        ("query.join", "source-only: clients don't join in this algorithm"),
    ],
)
def test_what_an_algorithm_does_not_do_is_an_error(ask, message_type, said):
    with pytest.raises(RuntimeError, match=said):
        ask(message_type, {"strategy": "source-only"})


def test_clients_compute_with_one_thread(ask):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        ask("evaluate")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def inner(message, context, call_next):
    reply = call_next(message, context)
    reply.content["metrics"]["order"] = 2
    return reply


def outer(message, context, call_next):
    reply = call_next(message, context)
    reply.content["metrics"]["order"] = 10 * reply.content["metrics"]["order"] + 1
    return reply


class Modified(DualAdapt):
    """DualAdapt within two of Flower's modifiers."""

    mods = (outer, inner)


def test_flowers_modifiers_stand_around_training_alone_the_outermost_first(ask):
    modified = {"strategy": f"{__name__}:{Modified.__name__}"}
    assert ask("train", modified)["metrics"]["order"] == 21
    assert "order" not in ask("evaluate", modified)["metrics"]
