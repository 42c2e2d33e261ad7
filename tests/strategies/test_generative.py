"""Flower's strategies as the generative workloads use them, and what they remember over a restart."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from protocol.generative_settings import LOCAL, GenerativeSettings
from protocol.records import config_record, from_record, to_record
from server.roster import Cohort
from strategies.generative import GENERATIVE_STRATEGIES
from strategies.memory import remembered, remind

START = {"b": np.array([1.0, 2.0], np.float32), "a": np.array([[3.0]], np.float32)}


def replies(shift):
    """Two clients that moved by `shift` and twice that, the second with three times as many examples."""
    for factor, examples in ((1, 10), (2, 30)):
        model = to_record({name: value + np.float32(factor * shift) for name, value in START.items()})
        metrics = MetricRecord({"num-examples": examples, "loss": 1.0})
        content = RecordDict({"model": model, "metrics": metrics, "client": ConfigRecord({"name": "pen/0000"})})
        yield Message(content, dst_node_id=1, message_type="train")


def round_of(strategy, settings, server_round, arrays, shift):
    messages = list(
        strategy.configure_train(server_round, arrays, config_record(settings, server_round), Cohort([4, 7]))
    )
    assert sorted(message.metadata.dst_node_id for message in messages) == [4, 7]
    assert set(messages[0].content) == {"model", "config"}
    new, _ = strategy.aggregate_train(server_round, list(replies(shift)))
    return to_record({name: value.numpy().astype(np.float32) for name, value in new.items()})


def test_every_strategy_of_the_settings_is_there():
    options = GenerativeSettings.model_fields["strategy"].annotation.__args__
    assert set(GENERATIVE_STRATEGIES) == set(options) - {LOCAL}


def first_round(name, settings):
    arrays = round_of(GENERATIVE_STRATEGIES[name](settings), settings, 1, to_record(START), shift=0.4)
    return {key: value.numpy() - START[key] for key, value in from_record(arrays).items()}


@pytest.mark.parametrize("name", ["fedavg", "fedprox", "fedavgm"])
def test_the_first_round_moves_by_the_weighted_mean(name, generative_settings_of):
    for moved in first_round(name, generative_settings_of(strategy=name)).values():
        assert moved == pytest.approx(0.7)  # (10 * 0.4 + 30 * 0.8) / 40


def test_fedadams_first_step_is_the_one_computed_by_hand(generative_settings_of):
    settings = generative_settings_of(strategy="fedadam", server_learning_rate=0.1, server_tau=0.5)
    first, second = 0.1 * 0.7, 0.01 * 0.7**2
    rate = 0.1 * np.sqrt(1 - 0.99**2) / (1 - 0.9**2)  # Flower counts its rounds from 1 more
    for moved in first_round("fedadam", settings).values():
        assert moved == pytest.approx(rate * first / (np.sqrt(second) + 0.5), rel=1e-5)


@pytest.mark.parametrize("name", GENERATIVE_STRATEGIES)
def test_a_reminded_strategy_goes_on_as_if_nothing_had_happened(name, generative_settings_of):
    settings = generative_settings_of(strategy=name)
    unbroken = GENERATIVE_STRATEGIES[name](settings)
    after_one = round_of(unbroken, settings, 1, to_record(START), shift=0.4)
    state = {key: value.clone() for key, value in remembered(unbroken).items()}
    after_two = round_of(unbroken, settings, 2, after_one, shift=-0.3)

    resumed = GENERATIVE_STRATEGIES[name](settings)
    remind(resumed, {**state, "average.a": state.get("average.a", next(iter(from_record(after_one).values())))})
    again = round_of(resumed, settings, 2, after_one, shift=-0.3)
    assert {key: value.numpy().tobytes() for key, value in again.items()} == {
        key: value.numpy().tobytes() for key, value in after_two.items()
    }


def test_forgetting_would_be_noticed(generative_settings_of):
    for name in ("fedavgm", "fedadam"):
        settings = generative_settings_of(strategy=name)
        unbroken = GENERATIVE_STRATEGIES[name](settings)
        after_one = round_of(unbroken, settings, 1, to_record(START), shift=0.4)
        after_two = round_of(unbroken, settings, 2, after_one, shift=-0.3)
        forgetful = round_of(GENERATIVE_STRATEGIES[name](settings), settings, 2, after_one, shift=-0.3)
        assert from_record(forgetful)["a"].item() != from_record(after_two)["a"].item()


def test_a_strategy_that_has_not_trained_remembers_nothing(generative_settings_of):
    for name, make in GENERATIVE_STRATEGIES.items():
        assert remembered(make(generative_settings_of(strategy=name))) == {}
