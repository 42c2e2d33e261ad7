"""Flower's strategies as the generative workloads use them, and what they remember over a restart."""

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from torch import nn

from fmtda.protocol.moments import moments_of, parted, restore_moments
from fmtda.protocol.records import config_record, from_record, to_record
from fmtda.protocol.tables import SettingsError
from fmtda.server.conversation import Cohort
from fmtda.strategies.flower import ANY_SIZE, FlowerStrategy
from fmtda.strategies.registry import algorithm, algorithms

FEDERATED = [each.name for each in algorithms("generative") if each.federated]
COHORT = Cohort({4: "pen/0000", 7: "pen/0001"})
START = {"b": np.array([1.0, 2.0], np.float32), "a": np.array([[3.0]], np.float32)}


def replies(shift):
    """Two clients that moved by `shift` and twice that, the second with three times as many examples."""
    for factor, examples in ((1, 10), (2, 30)):
        model = to_record({name: value + np.float32(factor * shift) for name, value in START.items()})
        metrics = MetricRecord({"num-examples": examples, "loss": 1.0})
        content = RecordDict({"model": model, "metrics": metrics, "client": ConfigRecord({"name": "pen/0000"})})
        yield Message(content, dst_node_id=1, message_type="train")


def round_of(strategy, settings, server_round, arrays, shift):
    messages = list(strategy.configure_train(server_round, arrays, config_record(settings, server_round), COHORT))
    assert sorted(message.metadata.dst_node_id for message in messages) == [4, 7]
    assert set(messages[0].content) == {"model", "config"}
    new, _ = strategy.aggregate_train(server_round, list(replies(shift)))
    return to_record({name: value.numpy().astype(np.float32) for name, value in new.items()})


@pytest.fixture
def made(generative_settings_of):
    """A strategy whose clients share no moments, fresh, and its settings; a dictionary changes some."""

    def make(name, changes=None):
        settings = generative_settings_of("ddpm", {"strategy": name, "training.moments": "fresh", **(changes or {})})
        return algorithm(name).server(settings, TwoNumbers()), settings

    return make


def test_pooled_data_are_the_only_ones_without_a_federation():
    assert [each.name for each in algorithms("generative") if not each.federated] == ["pooled-data"]


def first_round(strategy, settings):
    arrays = round_of(strategy, settings, 1, to_record(START), shift=0.4)
    return {key: value.numpy() - START[key] for key, value in from_record(arrays).items()}


@pytest.mark.parametrize("name", ["fedavg", "fedprox", "fedavgm"])
def test_the_first_round_moves_by_the_weighted_mean(name, made):
    for moved in first_round(*made(name)).values():
        assert moved == pytest.approx(0.7)  # (10 * 0.4 + 30 * 0.8) / 40


def test_fedadams_first_step_is_the_one_computed_by_hand(made):
    own = {"fedadam.learning-rate": 0.1, "fedadam.tau": 0.5}
    first, second = 0.1 * 0.7, 0.01 * 0.7**2
    rate = 0.1 * np.sqrt(1 - 0.99**2) / (1 - 0.9**2)  # Flower counts its rounds from 1 more
    for moved in first_round(*made("fedadam", own)).values():
        assert moved == pytest.approx(rate * first / (np.sqrt(second) + 0.5), rel=1e-5)


@pytest.mark.parametrize("name", FEDERATED)
def test_a_reminded_strategy_goes_on_as_if_nothing_had_happened(name, made):
    unbroken, settings = made(name)
    after_one = round_of(unbroken, settings, 1, to_record(START), shift=0.4)
    state = {key: value.clone() for key, value in unbroken.state().items()}
    after_two = round_of(unbroken, settings, 2, after_one, shift=-0.3)

    resumed, _ = made(name)
    resumed.load_state({**state, "average.a": state.get("average.a", next(iter(from_record(after_one).values())))})
    again = round_of(resumed, settings, 2, after_one, shift=-0.3)
    assert {key: value.numpy().tobytes() for key, value in again.items()} == {
        key: value.numpy().tobytes() for key, value in after_two.items()
    }


def test_forgetting_would_be_noticed(made):
    for name in ("fedavgm", "fedadam"):
        unbroken, settings = made(name)
        after_one = round_of(unbroken, settings, 1, to_record(START), shift=0.4)
        after_two = round_of(unbroken, settings, 2, after_one, shift=-0.3)
        forgetful = round_of(made(name)[0], settings, 2, after_one, shift=-0.3)
        assert from_record(forgetful)["a"].item() != from_record(after_two)["a"].item()


def test_a_strategy_that_has_not_trained_remembers_nothing(made):
    for name in FEDERATED:
        assert made(name)[0].state() == {}


class ChangesInPlace(FedAvg):
    """Remembers what it had from the start, where it lay, and a number of NumPy's."""

    def __init__(self):
        super().__init__(**ANY_SIZE)
        self.momentum, self.norm = [np.zeros(2)], np.float32(1)


def test_memory_that_is_changed_where_it_lies_is_kept_too():
    changed, fresh = ChangesInPlace(), ChangesInPlace()
    strategy = FlowerStrategy(changed)
    changed.momentum[0] += 3
    changed.norm = np.float32(2)
    FlowerStrategy(fresh).load_state(strategy.state())
    assert (fresh.momentum[0].tolist(), fresh.norm) == ([3.0, 3.0], 2.0)


class TwoNumbers(nn.Module):
    """The model that `START` are the weights of."""

    def __init__(self):
        super().__init__()
        self.b, self.a = (nn.Parameter(torch.from_numpy(START[name].copy())) for name in ("b", "a"))


def trained(message, target, examples):
    """A client's reply: one step of the Adam that the message brings, towards a target."""
    model = TwoNumbers()
    weights, moments = parted(from_record(message.content["model"]))
    model.load_state_dict(weights)
    adam = torch.optim.Adam(model.parameters(), lr=0.1)
    restore_moments(adam, model, moments)
    sum((value - target).square().sum() for value in model.parameters()).backward()
    adam.step()
    content = RecordDict(
        {
            "model": to_record(model.state_dict() | moments_of(adam, model)),
            "metrics": MetricRecord({"num-examples": examples, "loss": 1.0}),
        }
    )
    return Message(content, dst_node_id=1, message_type="train")


def shared_round(strategy, settings, server_round, arrays, targets=((-5.0, 10), (9.0, 30))):
    config = config_record(settings, server_round)
    message, _ = strategy.configure_train(server_round, arrays, config, COHORT)
    new, _ = strategy.aggregate_train(server_round, [trained(message, *each) for each in targets])
    return new


@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
def test_clients_with_the_same_data_that_share_moments_descend_as_one_adam_does(name, generative_settings_of):
    settings = generative_settings_of("ddpm", {"strategy": name})
    strategy, arrays = algorithm(settings.strategy).server(settings, TwoNumbers()), to_record(START)
    for server_round in range(1, 6):
        arrays = shared_round(strategy, settings, server_round, arrays, targets=((9.0, 10), (9.0, 30)))
    alone = TwoNumbers()
    adam = torch.optim.Adam(alone.parameters(), lr=0.1)
    for _ in range(5):
        adam.zero_grad()
        sum((value - 9.0).square().sum() for value in alone.parameters()).backward()
        adam.step()
    assert set(arrays) == set(START)
    for key, value in from_record(arrays).items():
        assert value == pytest.approx(alone.state_dict()[key].numpy(), rel=1e-5)
    assert {value.item() for key, value in strategy.moments.items() if key.endswith(".step")} == {5.0}


def test_moments_are_averaged_by_examples_as_the_model_is(generative_settings_of):
    settings = generative_settings_of()
    assert settings.training.moments == "averaged"
    strategy = algorithm(settings.strategy).server(settings, TwoNumbers())
    shared_round(strategy, settings, 1, to_record(START))
    gradients = [2 * (3.0 - target) for target in (-5.0, 9.0)]  # of "a", in the first step
    mean, squares = ((10 * g(gradients[0]) + 30 * g(gradients[1])) / 40 for g in (float, lambda x: x * x))
    assert strategy.moments["optimiser.a.exp_avg"].item() == pytest.approx(0.1 * mean)
    assert strategy.moments["optimiser.a.exp_avg_sq"].item() == pytest.approx(0.001 * squares)


def test_shared_moments_survive_a_restart(generative_settings_of):
    settings = generative_settings_of()
    unbroken = algorithm(settings.strategy).server(settings, TwoNumbers())
    after_one = shared_round(unbroken, settings, 1, to_record(START))
    state = {key: value.clone() for key, value in unbroken.state().items()}
    after_two = shared_round(unbroken, settings, 2, after_one)
    resumed, forgetful = (algorithm(settings.strategy).server(settings, TwoNumbers()) for _ in range(2))
    resumed.load_state({**state, "average.a": torch.zeros(1, 1)})
    again, forgotten = (shared_round(each, settings, 2, after_one) for each in (resumed, forgetful))
    assert from_record(again)["a"].item() == from_record(after_two)["a"].item() != from_record(forgotten)["a"].item()


@pytest.mark.parametrize("name", ["fedavgm", "fedadam"])
def test_moments_that_a_server_would_not_only_average_are_refused(name, generative_settings_of):
    settings = generative_settings_of("ddpm", {"strategy": name}).changed({"training.moments": "averaged"})
    said = f"training.moments=averaged: strategy={name} does more than average; take training.moments=fresh"
    with pytest.raises(SettingsError, match=said):
        algorithm(name).check(settings)
