"""The clients of fed-mcd, fed-dann and adabn: what leaves them, what that depends on, and how they predict."""

import dataclasses

import pytest
import torch
from flwr.app import Message, RecordDict

from fmtda.adaptation.batch_norm import reestimate
from fmtda.adaptation.dann import Discriminated, Discriminator
from fmtda.adaptation.mcd import TwoHeads
from fmtda.adaptation.registry import build
from fmtda.domains.examples import Examples
from fmtda.protocol.records import check_arrays, check_records, config_record, from_record, layout_of, to_record
from fmtda.strategies.adabn import AdaBN
from fmtda.strategies.registry import algorithm
from tests.strategies.uploads import same_bits

TRAINERS = ("fed-mcd", "fed-dann")


def model(settings):
    network, other = (build(settings.network.name, 10, settings.shape, seed) for seed in (0, 1))
    return {
        "fed-mcd": lambda: TwoHeads(network, other.classifier),
        "fed-dann": lambda: Discriminated(network, Discriminator.seeded(network.feature_size, 0)),
        "adabn": lambda: network,
    }[settings.strategy]()


def message_to(client, message_type="train", steps=None):
    """What the server sends: the strategy's whole model and, in fed-dann, source features."""
    settings = client.settings
    records = {"model": to_record(model(settings).state_dict()), "config": config_record(settings, client.round)}
    if settings.strategy == "fed-dann" and message_type == "train":
        shape = (steps or settings.algorithm.local_steps, settings.algorithm.local_batch, 128)
        features = torch.rand(shape, generator=torch.Generator().manual_seed(7))
        records["source_features"] = to_record({"features": features})
    return Message(RecordDict(records), dst_node_id=5, message_type=message_type)


def upload(client):
    content = algorithm(client.settings.strategy).train(message_to(client), client).content
    return from_record(content["model"])


@pytest.mark.parametrize("strategy", TRAINERS)
def test_exactly_the_model_leaves_a_client_and_it_is_finite(strategy, settings_of, client_of):
    client = client_of(settings_of({"strategy": strategy}))
    message = message_to(client)
    content = algorithm(strategy).train(message, client).content
    check_records(content, "model")
    check_arrays(content["model"], layout_of(message.content["model"]))
    metrics = dict(content["metrics"])
    assert metrics["num-examples"] == 24
    assert not [key for key in metrics if "correct" in key or "accuracy" in key]
    assert not client.folder.exists()  # nothing stays either


@pytest.mark.parametrize(
    ("strategy", "moved"),
    [
        ("fed-mcd", {"feature_extractor", "classifier", "second_classifier"}),
        ("fed-dann", {"feature_extractor", "discriminator"}),
    ],
)
def test_the_parts_that_a_client_trains_move_and_no_other(strategy, moved, settings_of, client_of):
    client = client_of(settings_of({"strategy": strategy}))
    sent, received = model(client.settings).state_dict(), upload(client)
    assert {name.split(".")[0] for name in sent if not torch.equal(sent[name], received[name])} == moved


@pytest.mark.parametrize("strategy", TRAINERS)
def test_uploads_depend_on_seed_round_and_name_and_on_no_label(strategy, settings_of, client_of):
    client = client_of(settings_of({"strategy": strategy}))
    first = upload(client)
    torch.manual_seed(99)  # whatever happened to the global generator
    relabelled = Examples(client.train.inputs, torch.full_like(client.train.labels, -1))
    assert same_bits(first, upload(dataclasses.replace(client, train=relabelled)))
    for change in ({"name": "pen/0001"}, {"round": 2}, {"settings": client.settings.changed({"seed": 1})}):
        assert not same_bits(first, upload(dataclasses.replace(client, **change)))


@pytest.mark.parametrize("strategy", TRAINERS)
@pytest.mark.parametrize("examples", [1, 2])
def test_a_client_with_next_to_nothing_trains(strategy, examples, settings_of, client_of):
    client = client_of(settings_of({"strategy": strategy}), train=examples)
    assert all(tensor.isfinite().all() for tensor in upload(client).values())


def test_source_features_for_another_number_of_steps_are_refused(settings_of, client_of):
    client = client_of(settings_of({"strategy": "fed-dann"}))
    with pytest.raises(ValueError, match="shorter|longer"):
        algorithm("fed-dann").train(message_to(client, steps=client.settings.algorithm.local_steps + 1), client)


def test_fed_mcd_predicts_by_the_mean_of_both_classifiers(settings_of, client_of):
    client = client_of(settings_of({"strategy": "fed-mcd"}), test=40)
    metrics = dict(algorithm("fed-mcd").evaluate(message_to(client, "evaluate"), client).content["metrics"])
    network = model(client.settings).eval()
    with torch.no_grad():
        z = network.feature_extractor(client.inputs(client.test)[:])
        mean = sum(head(z).softmax(dim=1) for head in network.heads) / 2
    assert metrics["correct-global"] == int((mean.argmax(dim=1) == client.test.labels).sum())
    assert metrics["entropy"] == pytest.approx(torch.special.entr(mean).sum(dim=1).mean().item(), rel=1e-5)


def test_adabn_predicts_with_the_clients_own_statistics_alone(settings_of, client_of):
    client = client_of(settings_of({"strategy": "adabn"}), test=40)
    metrics = dict(AdaBN().evaluate(message_to(client, "evaluate"), client).content["metrics"])
    network = model(client.settings).eval()
    reestimate(network.feature_extractor, client.inputs(client.train), 1.0)
    with torch.no_grad():
        p = network(client.inputs(client.test)[:]).softmax(dim=1)
    assert metrics["entropy"] == pytest.approx(torch.special.entr(p).sum(dim=1).mean().item(), rel=1e-5)
    assert metrics["correct-global"] == int((p.argmax(dim=1) == client.test.labels).sum())


def test_adabn_on_one_example_keeps_the_servers_statistics(settings_of, client_of):
    client = client_of(settings_of({"strategy": "adabn"}), train=1)
    metrics = dict(AdaBN().evaluate(message_to(client, "evaluate"), client).content["metrics"])
    with torch.no_grad():
        p = model(client.settings).eval()(client.inputs(client.test)[:]).softmax(dim=1)
    assert metrics["entropy"] == pytest.approx(torch.special.entr(p).sum(dim=1).mean().item(), rel=1e-5)


def test_what_adabn_evaluated_with_is_kept_and_predicts_again(settings_of, client_of):
    client = client_of(settings_of({"strategy": "adabn"}))
    message = message_to(client, "evaluate")
    evaluated = AdaBN().adapt(message, client)
    again = AdaBN().predictor(AdaBN().received(message, client), client)
    inputs = client.inputs(client.test)[:]
    assert torch.equal(evaluated(inputs), again(inputs))
    lost = dataclasses.replace(client, folder=client.folder / "lost")
    assert not torch.equal(evaluated(inputs), AdaBN().predictor(AdaBN().received(message, lost), lost)(inputs))
