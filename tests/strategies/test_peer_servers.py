"""FedMCD and FedDANN on the server: what they add to the pre-trained model, send, average and fine-tune."""

import copy

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from torch.nn import functional

from fmtda.adaptation.registry import build
from fmtda.protocol.records import config_record, from_record, to_record
from fmtda.protocol.seeds import generator_for
from fmtda.server.conversation import Cohort
from fmtda.strategies.registry import algorithm

SHAPE = (3, 32, 32)
ONE = Cohort({4: "pen/0000"})
ADDED = {"fed-mcd": "second_classifier", "fed-dann": "discriminator"}


class Drawn:
    """A source of random pictures in the class of their brightness."""

    def draw(self, count, generator):
        labels = torch.randint(0, 10, (count,), generator=generator)
        return torch.rand(count, *SHAPE, generator=generator) + labels[:, None, None, None] / 5, labels


@pytest.fixture
def peer(settings_of):
    """Settings of a run of a peer; the first dictionary changes its own table, `common` any key."""

    def make(kind, own=None, common=None):
        table = {f"{kind}.{key}": value for key, value in (own or {}).items()}
        return settings_of({"strategy": kind, **table, **(common or {})})

    return make


def pretrained():
    return build("small-cnn", 10, SHAPE, 0)


def made(kind, settings):
    return algorithm(kind).server(settings, pretrained(), Drawn())


def replies(states, examples):
    contents = [
        RecordDict(
            {
                "client": ConfigRecord({"name": f"pen/{number:04d}"}),
                "metrics": MetricRecord({"num-examples": count, "seconds": 1.0}),
                "model": to_record(state),
            }
        )
        for number, (state, count) in enumerate(zip(states, examples, strict=True))
    ]
    return [Message(content, dst_node_id=1, message_type="train") for content in contents]


def disturbed(state, seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: tensor + 0.01 * torch.rand(tensor.shape, generator=generator) for name, tensor in state.items()}


@pytest.mark.parametrize("kind", ADDED)
def test_the_first_model_is_the_pre_trained_one_and_one_module_more(kind, peer):
    before = pretrained().state_dict()
    arrays = made(kind, peer(kind)).initial(to_record(before))
    state = from_record(arrays)
    assert all(torch.equal(state[name], before[name]) for name in before)
    assert {name.split(".")[0] for name in set(state) - set(before)} == {ADDED[kind]}
    again = from_record(made(kind, peer(kind)).initial(to_record(before)))
    other = from_record(made(kind, peer(kind, common={"seed": 1})).initial(to_record(before)))
    new = [name for name in state if name.startswith(ADDED[kind])]
    assert all(torch.equal(state[name], again[name]) for name in new)
    assert not all(torch.equal(state[name], other[name]) for name in new)


def test_the_second_classifier_has_learned_the_source_and_is_not_the_first(peer):
    longer = {"pretraining.steps": 400, "pretraining.batch": 32, "pretraining.learning-rate": 1e-2}
    strategy = made("fed-mcd", peer("fed-mcd", common=longer))
    fresh = copy.deepcopy(strategy.network)
    strategy.initial(to_record(pretrained().state_dict()))
    inputs, labels = Drawn().draw(64, torch.Generator().manual_seed(1))

    def loss(network):
        with torch.no_grad():
            features = network.eval().feature_extractor(inputs)
            return functional.cross_entropy(network.second_classifier(features), labels).item()

    assert loss(strategy.network) < loss(fresh) - 0.1
    first, second = strategy.network.heads
    assert not torch.equal(first.weight, second.weight)


@pytest.mark.parametrize("kind", ADDED)
def test_without_fine_tuning_a_round_is_flowers_weighted_average(kind, peer):
    strategy = made(kind, peer(kind, {"server-steps": 0}))
    state = from_record(strategy.initial(to_record(pretrained().state_dict())))
    states, examples = [disturbed(state, seed) for seed in range(3)], [1, 30, 400]
    arrays, metrics = strategy.aggregate_train(1, replies(states, examples))
    averaged = from_record(arrays)
    assert averaged.keys() == state.keys()
    for name in averaged:
        expected = np.average([each[name].double().numpy() for each in states], axis=0, weights=examples)
        np.testing.assert_allclose(averaged[name].numpy(), expected, rtol=1e-5, atol=1e-6)
    assert metrics["fine-tuning-loss"] == 0


@pytest.mark.parametrize("kind", ADDED)
def test_a_fine_tuning_step_is_the_one_that_plain_torch_makes(kind, peer):
    settings = peer(kind, {"server-steps": 1, "server-batch": 16, "finetune-learning-rate": 1e-3, "weight-decay": 0.1})
    strategy = made(kind, settings)
    state = from_record(strategy.initial(to_record(pretrained().state_dict())))
    network = copy.deepcopy(strategy.network)
    arrays, metrics = strategy.aggregate_train(2, replies([state], [5]))

    network.load_state_dict(state)
    heads = [network.classifier, *([network.second_classifier] if kind == "fed-mcd" else [])]
    inputs, labels = Drawn().draw(16, generator_for(settings.seed, "server", 2, "fine-tuning"))
    features = network.eval().feature_extractor(inputs)
    loss = sum(functional.cross_entropy(head(features), labels) for head in heads)
    trained = [*network.feature_extractor.parameters(), *(p for head in heads for p in head.parameters())]
    loss.backward()
    torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.1).step()
    assert metrics["fine-tuning-loss"] == pytest.approx(loss.item(), rel=1e-5)
    for name, tensor in from_record(arrays).items():
        torch.testing.assert_close(tensor, network.state_dict()[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ADDED)
def test_a_round_depends_on_nothing_that_an_earlier_one_left_in_the_server(kind, peer):
    """Resuming: a strategy fresh from the disk goes on from the arrays alone."""
    settings = peer(kind)
    veteran, fresh = made(kind, settings), made(kind, settings)
    state = from_record(veteran.initial(to_record(pretrained().state_dict())))
    first, _ = veteran.aggregate_train(1, replies([disturbed(state, 1)], [5]))
    second, uploads = [], [disturbed(from_record(first), 2)]
    for strategy in (veteran, fresh):
        sent = list(strategy.configure_train(2, first, config_record(settings, 2), ONE))
        arrays, _ = strategy.aggregate_train(2, replies(uploads, [5]))
        second.append({**from_record(sent[0].content["model"]), **{f"+{n}": t for n, t in from_record(arrays).items()}})
    assert all(torch.equal(second[0][name], second[1][name]) for name in second[0])


@pytest.mark.parametrize("kind", ADDED)
def test_no_reply_changes_nothing(kind, peer):
    assert made(kind, peer(kind)).aggregate_train(1, []) == (None, None)


def test_fed_dann_sends_features_of_the_source_for_every_local_step(peer):
    settings = peer("fed-dann", {"local-steps": 3, "local-batch": 8})
    strategy = made("fed-dann", settings)
    arrays = strategy.initial(to_record(pretrained().state_dict()))
    sent = list(
        strategy.configure_train(2, arrays, config_record(settings, 2), Cohort({3: "a/0000", 1: "a/0001", 2: "b/0000"}))
    )
    assert sorted(message.metadata.dst_node_id for message in sent) == [1, 2, 3]
    features = from_record(sent[0].content["source_features"])["features"]
    assert features.shape == (3, 8, 128)
    generator = generator_for(settings.seed, "server", 2, "source features")
    with torch.no_grad():
        expected = pretrained().eval().feature_extractor(Drawn().draw(8, generator)[0])
    torch.testing.assert_close(features[0], expected)
    assert sent[0].content["config"]["server-round"] == 2


def test_fed_dann_sends_no_discriminator_to_predict(peer):
    settings = peer("fed-dann")
    strategy = made("fed-dann", settings)
    arrays = strategy.initial(to_record(pretrained().state_dict()))
    (message,) = strategy.configure_evaluate(1, arrays, config_record(settings, 1), ONE)
    assert message.content["model"].keys() == pretrained().state_dict().keys()
    pretrained().load_state_dict(from_record(message.content["model"]))


def test_fed_mcd_sends_both_classifiers_to_predict(peer):
    settings = peer("fed-mcd")
    strategy = made("fed-mcd", settings)
    arrays = strategy.initial(to_record(pretrained().state_dict()))
    (message,) = strategy.configure_evaluate(1, arrays, config_record(settings, 1), ONE)
    assert message.content["model"].keys() == arrays.keys()
