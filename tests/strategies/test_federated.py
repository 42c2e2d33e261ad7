"""Flower's own strategies within ours: uploads that they must not get, metrics that they can't add up, their memory."""

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideAdaptiveClipping,
    FedAdam,
    FedAvg,
    FedMedian,
    FedTrimmedAvg,
    Krum,
)

from fmtda.protocol.records import BadReply, config_record, from_record, to_record
from fmtda.server.conversation import Cohort
from fmtda.strategies.flower import ANY_SIZE, FlowerStrategy

MODEL = {"weight": np.array([[1.0, 2.0]], np.float32), "bias": np.array([3.0], np.float32)}
NAMES = {7: "pen/0000", 4: "pen/0001", 5: "street/0000"}


def upload(shift, examples=10, name="pen/0000", arrays=MODEL, **metrics):
    return RecordDict(
        {
            "client": ConfigRecord({"name": name}),
            "metrics": MetricRecord({"num-examples": examples, "seconds": 1.0, **metrics}),
            "model": to_record({key: value + np.float32(shift) for key, value in arrays.items()}),
        }
    )


def replies(*contents):
    return [Message(content, dst_node_id=1, message_type="train") for content in contents]


@pytest.fixture
def asked(settings_of):
    """A strategy that has sent a model to three clients."""

    def make(flower, server_round=1, arrays=MODEL):
        strategy = flower if isinstance(flower, FlowerStrategy) else FlowerStrategy(flower)
        config = config_record(settings_of(), server_round)
        sent = list(strategy.configure_train(server_round, to_record(arrays), config, Cohort(NAMES)))
        assert sorted(message.metadata.dst_node_id for message in sent) == sorted(NAMES)
        return strategy

    return make


@pytest.mark.parametrize("make", [FedAvg, FedMedian, FedTrimmedAvg, Krum, FedAdam])
def test_any_of_flowers_aggregates_what_comes_back(make, asked):
    strategy = asked(make(**ANY_SIZE))
    contents = [upload(shift, name=name) for shift, name in zip((0.1, 0.2, 0.3), NAMES.values(), strict=True)]
    for content in contents:
        strategy.check_upload(content)
    arrays, _ = strategy.aggregate_train(1, replies(*contents))
    assert from_record(arrays).keys() == MODEL.keys()
    assert not any(np.array_equal(value.numpy(), MODEL[name]) for name, value in from_record(arrays).items())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (upload(0, arrays={"weight": MODEL["weight"]}), r"missing arrays \['bias'\]"),
        (upload(0, arrays={**MODEL, "more": MODEL["bias"]}), r"unexpected arrays \['more'\]"),
        (upload(0, arrays={**MODEL, "bias": np.zeros(2, np.float32)}), r"bias is float32\[2\], expected float32\[1\]"),
        (upload(np.nan), "not finite"),
        (upload(0, examples=0), "num-examples is 0, expected a whole number from 1"),
        (upload(0, examples=2.5), "num-examples is 2.5, expected a whole number from 1"),
        (upload(0, losses=[1.0, 2.0]), "metric losses holds 2 numbers, expected one"),
        (RecordDict({**upload(0), "mixture": to_record(MODEL)}), "'mixture'"),
    ],
)
def test_what_can_not_be_averaged_is_refused(content, said, asked):
    with pytest.raises(BadReply, match=said):
        asked(FedAvg(**ANY_SIZE)).check_upload(content)


def test_a_negative_second_moment_is_refused(asked):
    arrays = {**MODEL, "optimiser.bias.exp_avg_sq": np.array([0.5], np.float32)}
    strategy = asked(FedAvg(**ANY_SIZE), arrays=arrays)
    strategy.check_upload(upload(0.1, arrays=arrays))
    with pytest.raises(BadReply, match="optimiser.bias.exp_avg_sq has negative values"):
        strategy.check_upload(upload(-1, arrays=arrays))


def test_a_metric_that_not_all_have_is_left_out_of_the_mean_and_stays_with_its_client(asked):
    strategy = asked(FedAvg(**ANY_SIZE))
    told = replies(upload(0.1, examples=10, loss=1.0, more=5.0), upload(0.1, examples=30, loss=3.0))
    _, metrics = strategy.aggregate_train(1, told)
    assert metrics["loss"] == pytest.approx(2.5)
    assert "more" not in metrics
    assert told[0].content["metrics"]["more"] == 5.0


def test_without_replies_nothing_changes(asked):
    assert asked(FedAvg(**ANY_SIZE)).aggregate_train(1, []) == (None, None)


def clipped_adam():
    """Two of Flower's classes in each other, both with a memory; the noise is too small to see."""
    return FlowerStrategy(
        DifferentialPrivacyServerSideAdaptiveClipping(
            FedAdam(**ANY_SIZE), 1e-12, 3, initial_clipping_norm=0.5, clipped_count_stddev=1e-12
        )
    )


def played(strategy, asked, server_round, arrays):
    asked(strategy, server_round, arrays)
    contents = [
        upload(shift, name=name, arrays=arrays) for shift, name in zip((0.1, 0.2, 0.9), NAMES.values(), strict=True)
    ]
    new, _ = strategy.aggregate_train(server_round, replies(*contents))
    return {name: value.numpy().astype(np.float32) for name, value in from_record(new).items()}


def test_a_wrapper_and_what_it_wraps_go_on_from_a_checkpoint(asked):
    unbroken = clipped_adam()
    assert unbroken.state() == {}
    after_one = played(unbroken, asked, 1, MODEL)
    state = {name: value.clone() for name, value in unbroken.state().items()}
    assert "strategy.clipping_norm" in state
    assert {name.partition(":")[0] for name in state if ":" in name} == {
        "strategy.strategy.m_t",
        "strategy.strategy.v_t",
    }
    after_two = played(unbroken, asked, 2, after_one)

    resumed, forgetful = clipped_adam(), clipped_adam()
    resumed.load_state({**state, "average.weight": torch.zeros(2)})
    again, forgotten = played(resumed, asked, 2, after_one), played(forgetful, asked, 2, after_one)
    for name, value in after_two.items():
        np.testing.assert_allclose(again[name], value, rtol=1e-6)
        assert np.abs(forgotten[name] - value).max() > 1e-4
    assert resumed.flower.clipping_norm == pytest.approx(unbroken.flower.clipping_norm)
    assert forgetful.flower.clipping_norm != pytest.approx(unbroken.flower.clipping_norm)
