"""The ClientApp: each kind of message reaches its work, through Flower's own dispatch."""

import pytest
import torch
from flwr.app import Context, Message, RecordDict

from fmtda.adaptation.mixture import fit
from fmtda.adaptation.networks import build
from fmtda.clients.app import TRAINERS, app
from fmtda.protocol.records import check_records, config_record, sender, to_record
from fmtda.strategies.registry import STRATEGIES


@pytest.fixture
def ask(tmp_path, settings_of):
    """Send one message to client pen/0000 of a simulation and return its reply's content."""

    def send(message_type, **changes):
        settings = settings_of(
            {"data.targets": "blend,pen", "clients": 4, "data.target-limit": 40, "output": str(tmp_path), **changes}
        )
        network = build("small-cnn", 10, (3, 32, 32), 0)
        mixture = fit(torch.rand(80, 128, generator=torch.Generator().manual_seed(0)), 2, 0)
        records = {"config": config_record(settings, 1)}
        if message_type != "query":
            records["model"] = to_record(network.state_dict())
        if message_type == "train":
            records["source_mixture"] = to_record(mixture.arrays())
        message = Message(RecordDict(records), dst_node_id=1, message_type=message_type)
        node_config = {"partition-id": 1, "num-partitions": 4}
        context = Context(run_id=1, node_id=1, node_config=node_config, state=RecordDict(), run_config={})
        content = app(message, context).content
        assert not context.state  # nothing may depend on it: a resumed run finds it empty
        return content

    return send


def test_every_strategy_that_trains_has_a_trainer():
    assert set(TRAINERS) == set(STRATEGIES) - {"source-only", "adabn"}


def test_a_query_is_answered_with_name_and_sizes_and_without_the_model(ask):
    content = ask("query")
    assert sender(content) == "pen/0000"
    assert dict(content["metrics"]) == {"train-examples": 20, "test-examples": 75, "shares-examples": 1}


@pytest.mark.parametrize(
    ("strategy", "uploaded"), [("dualadapt", ("classifier", "mixture")), ("fedavg-self-training", ("model",))]
)
def test_training_follows_the_strategy(ask, strategy, uploaded):
    content = ask("train", strategy=strategy)
    check_records(content, *uploaded)
    assert content["metrics"]["num-examples"] == 20


def test_personalising_and_evaluating_upload_no_arrays(ask):
    personalised = ask("train.personalise", personalise=True)
    check_records(personalised)
    assert 0 <= personalised["metrics"]["correct-personal"] <= 75
    check_records(ask("evaluate"))


def test_clients_compute_with_one_thread(ask):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        ask("evaluate")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
