"""What a client that joins late sends, and how it uses the start that it is sent."""

import dataclasses

import pytest
import torch
from flwr.app import Message, RecordDict

from fmtda.protocol.records import from_record, to_record
from fmtda.strategies.dualadapt.client import LOCALISED, DualAdapt


def with_start(message, start):
    content = RecordDict({**message.content, "start": to_record(start)})
    return Message(content, dst_node_id=5, message_type=message.metadata.message_type)


def start_of(message, factor=1.0):
    """F_g of the message, its weights multiplied."""
    model = from_record(message.content["model"])
    return {name: factor * model[f"classifier.{name}"] for name in ("weight", "bias")}


@pytest.mark.parametrize(
    "way", [{"preset": "default"}, {"preset": "paper"}, {"preset": "paper", "dualadapt.client-batch": 1}]
)
def test_it_joins_by_the_mixture_that_it_would_upload_if_it_trained(way, settings_of, client_of, message_to):
    client = client_of(settings_of(way))
    sent = DualAdapt().join(message_to(client), client).content
    assert set(sent) == {"client", "metrics", "mixture"}
    assert set(sent["metrics"]) == {"num-examples", "seconds"}
    trained = from_record(DualAdapt().train(message_to(client), client).content["mixture"])
    assert all(torch.equal(tensor, trained[name]) for name, tensor in from_record(sent["mixture"]).items())


def test_joining_leaves_nothing_behind(client_of, message_to):
    client = client_of()
    DualAdapt().join(message_to(client), client)
    assert not client.folder.exists()


def test_f_l_begins_at_the_start_and_without_steps_stays_there(settings_of, client_of, message_to):
    client = client_of(settings_of({"preset": "paper", "dualadapt.client-steps": 0}))
    message = message_to(client)
    start = start_of(message, 2.0)
    uploaded = from_record(DualAdapt().train(with_start(message, start), client).content["classifier"])
    assert all(torch.equal(uploaded[name], start[name]) for name in start)


def test_the_start_f_g_changes_no_bit(client_of, message_to):
    client = client_of()
    message = message_to(client)
    plain, started = (
        DualAdapt().train(each, dataclasses.replace(client, folder=client.folder / folder)).content
        for folder, each in (("plain", message), ("started", with_start(message, start_of(message))))
    )
    for record in ("classifier", "mixture"):
        first, second = from_record(plain[record]), from_record(started[record])
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_start_decides_the_prediction_over_what_was_uploaded_once(settings_of, client_of, message_to):
    client = client_of(settings_of({"preset": "paper"}))
    DualAdapt().train(message_to(client), client)
    message = message_to(client, "evaluate")
    start = {name: torch.zeros_like(tensor) for name, tensor in start_of(message).items()}
    metrics = DualAdapt().evaluate(with_start(message, start), client).content["metrics"]
    kept = client.kept(LOCALISED)["classifier"]
    assert all(not tensor.any() for tensor in kept.values())
    assert "log-likelihood" not in metrics
