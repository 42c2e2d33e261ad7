"""Clients of the algorithms: what their uploads depend on, and what never."""

import dataclasses

import pytest
import torch

from fmtda.adaptation.registry import build
from fmtda.protocol.records import from_record
from fmtda.strategies.registry import algorithm
from tests.strategies.uploads import RELABELLINGS, relabelled, same_bits, upload

WAYS = [
    {"strategy": "dualadapt", "preset": "default"},
    {"strategy": "dualadapt", "preset": "paper"},
    {"strategy": "fedavg-self-training"},
]


NAMES = ["default", "paper", "fedavg-self-training"]


@pytest.mark.parametrize("relabelling", RELABELLINGS)
@pytest.mark.parametrize("way", WAYS, ids=NAMES)
def test_uploads_do_not_depend_on_target_labels(way, relabelling, settings_of, client_of, message_to):
    client = client_of(settings_of(way))
    other = relabelled(client, RELABELLINGS[relabelling])
    assert not torch.equal(client.train.labels, other.train.labels)
    assert same_bits(upload(message_to(client), client), upload(message_to(other), other))


def test_fedavg_self_training_moves_the_whole_model(settings_of, client_of, message_to):
    client = client_of(settings_of({"strategy": "fedavg-self-training"}))
    message = message_to(client)
    sent = from_record(message.content["model"])
    received = upload(message, client)
    for name in ("classifier.weight", "feature_extractor.1.weight"):
        assert not torch.equal(received[f"model.{name}"], sent[name])


@pytest.mark.parametrize("way", WAYS, ids=NAMES)
def test_equal_messages_give_equal_bits(way, settings_of, client_of, message_to):
    client, again = (client_of(settings_of(way), folder=folder) for folder in ("first", "again"))
    first = upload(message_to(client), client)
    torch.manual_seed(99)
    torch.rand(5)  # whatever happened to the global generator
    assert same_bits(first, upload(message_to(again), again))


@pytest.mark.parametrize("way", WAYS, ids=NAMES)
def test_what_an_earlier_round_left_behind_changes_no_upload(way, settings_of, client_of, message_to):
    fresh, veteran = (client_of(settings_of(way), folder=folder, server_round=2) for folder in ("fresh", "veteran"))
    earlier = dataclasses.replace(veteran, round=1)
    upload(message_to(earlier, network_seed=1), earlier)
    assert same_bits(upload(message_to(fresh), fresh), upload(message_to(veteran), veteran))


@pytest.mark.parametrize("change", [{"name": "pen/0001"}, {"round": 2}, {"settings": 1}], ids=["name", "round", "seed"])
@pytest.mark.parametrize("way", WAYS, ids=NAMES)
def test_another_name_round_or_seed_gives_another_upload(way, change, settings_of, client_of, message_to):
    client = client_of(settings_of(way))
    if "settings" in change:
        change = {"settings": client.settings.changed({"seed": 1})}
    other = dataclasses.replace(client, folder=client.folder / "other", **change)
    assert not same_bits(upload(message_to(client), client), upload(message_to(other), other))


@pytest.mark.parametrize("examples", [1, 2, 9])
def test_a_client_with_next_to_nothing_trains_on_pseudo_labels_and_evaluates(
    examples, settings_of, client_of, message_to
):
    client = client_of(settings_of({"strategy": "fedavg-self-training"}), train=examples, test=1)
    assert all(tensor.isfinite().all() for tensor in upload(message_to(client), client).values())
    reply = algorithm("fedavg-self-training").evaluate(message_to(client, "evaluate"), client)
    assert reply.content["metrics"]["num-examples"] == 1


@pytest.mark.parametrize("strategy", ["source-only", "fedavg-self-training"])
def test_what_another_algorithm_kept_changes_no_prediction(strategy, settings_of, client_of, message_to):
    client = client_of()
    upload(message_to(client), client)
    algorithm("dualadapt").evaluate(message_to(client, "evaluate"), client)
    plain = dataclasses.replace(client, settings=settings_of({"strategy": strategy}))
    message = message_to(plain, "evaluate")
    network = build("small-cnn", 10, (3, 32, 32), 0).eval()
    predicted = network(plain.inputs(plain.test)[:]).argmax(dim=1)
    metrics = dict(algorithm(strategy).evaluate(message, plain).content["metrics"])
    assert [key for key in metrics if key.startswith("correct")] == ["correct-global"]
    assert metrics["correct-global"] == int((predicted == plain.test.labels).sum())
