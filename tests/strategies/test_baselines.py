"""The servers of the peers that train nothing or average alone, and what all servers have in common."""

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from fmtda.adaptation.registry import build
from fmtda.protocol.records import config_record, from_record, to_record
from fmtda.server.conversation import Cohort
from fmtda.strategies.registry import ADAPTING, algorithm


@pytest.fixture
def arrays():
    return to_record(build("small-cnn", 10, (3, 8, 8), 0).state_dict())


def asked(strategy, phase, arrays, settings, node_ids):
    cohort = Cohort({node_id: f"pen/{node_id:04d}" for node_id in node_ids})
    configure = {"train": strategy.configure_train, "evaluate": strategy.configure_evaluate}[phase]
    return list(configure(1, arrays, config_record(settings, 1), cohort))


def server(strategy, settings_of):
    settings = settings_of({"strategy": strategy})
    return algorithm(strategy).server(settings, build("small-cnn", 10, (3, 8, 8), 0), None), settings


@pytest.mark.parametrize("strategy", ["source-only", "adabn"])
def test_source_only_and_adabn_ask_nobody_to_train_and_leave_the_model_as_it_is(strategy, settings_of, arrays):
    made, settings = server(strategy, settings_of)
    assert asked(made, "train", arrays, settings, [1, 2, 3]) == []
    assert made.aggregate_train(1, []) == (None, None)
    assert made.initial(arrays) is arrays
    assert made.state() == {}


@pytest.mark.parametrize("strategy", ADAPTING)
@pytest.mark.parametrize("node_ids", [[4], [7, 3, 5]])
def test_every_strategy_asks_everybody_of_the_cohort_to_evaluate(strategy, node_ids, settings_of, arrays):
    made, settings = server(strategy, settings_of)
    sent = asked(made, "evaluate", arrays, settings, node_ids)
    assert sorted(message.metadata.dst_node_id for message in sent) == sorted(node_ids)
    assert {frozenset(message.content) for message in sent} == {frozenset({"model", "config"})}


@pytest.mark.parametrize("node_ids", [[4], [7, 3, 5]])
def test_fedavg_asks_everybody_of_the_cohort_to_train(node_ids, settings_of, arrays):
    made, settings = server("fedavg-self-training", settings_of)
    sent = asked(made, "train", arrays, settings, node_ids)
    assert sorted(message.metadata.dst_node_id for message in sent) == sorted(node_ids)
    assert sent[0].content["config"]["server-round"] == 1


def test_flowers_average_is_the_mean_weighted_by_examples(settings_of):
    examples = [1, 30, 400]
    states = [build("small-cnn", 10, (3, 8, 8), seed).state_dict() for seed in range(3)]
    replies = [
        Message(
            RecordDict(
                {
                    "model": to_record(state),
                    "metrics": MetricRecord({"num-examples": count, "seconds": 1.0}),
                    "client": ConfigRecord({"name": f"pen/{number:04d}"}),
                }
            ),
            dst_node_id=1,
            message_type="train",
        )
        for number, (state, count) in enumerate(zip(states, examples, strict=True))
    ]
    made, _ = server("fedavg-self-training", settings_of)
    arrays, _ = made.aggregate_train(1, replies)
    averaged = from_record(arrays)
    assert averaged.keys() == states[0].keys()
    for name, tensor in averaged.items():
        expected = np.average([state[name].double().numpy() for state in states], axis=0, weights=examples)
        assert tensor.dtype == states[0][name].dtype
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-5, atol=1e-6)
    build("small-cnn", 10, (3, 8, 8), 0).load_state_dict(averaged)


def test_a_strategy_that_averages_uploads_floats_alone(arrays):
    """FedAvg would average integer counters too."""
    assert {array.dtype for array in arrays.values()} == {"float32"}
    assert not torch.tensor([name.endswith("num_batches_tracked") for name in arrays]).any()
