"""How much a client counts in an average: at most so many medians, whatever it says."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fmtda.protocol.records import from_record, to_record
from fmtda.strategies.averages import capped
from fmtda.strategies.flower import ANY_SIZE, FlowerStrategy


def uploads(*told):
    """Replies of clients that say so many examples each, the model of client i being i."""
    replies = []
    for place, examples in enumerate(told):
        content = RecordDict(
            {
                "client": ConfigRecord({"name": f"pen/{place:04d}"}),
                "metrics": MetricRecord({"loss": 1.0} if examples is None else {"num-examples": examples}),
                "model": to_record({"weight": np.full(3, place, np.float32)}),
            }
        )
        replies.append(Message(content, reply_to=Message(RecordDict(), dst_node_id=place + 1, message_type="train")))
    return replies


def weights(replies):
    return [reply.content.metric_records["metrics"].get("num-examples") for reply in replies]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ((100, 200, 300), [100, 200, 300]),
        ((100, 200, 2**53 - 1), [100, 200, 2000]),
        ((2**53 - 1, 100), [1000, 100]),  # of two, the lower one is the median
        ((100, 200, 2**52, 2**52), [100, 200, 2000, 2000]),
        ((2**53 - 1,), [2**53 - 1]),  # alone it is the average anyway
        ((None, 5, 100), [None, 5, 50]),
        ((), []),
    ],
)
def test_a_weight_is_ten_medians_at_most(told, expected):
    assert weights(capped(uploads(*told), 10)) == expected


def test_what_the_client_said_stays_and_what_is_below_the_cap_is_not_even_copied():
    replies = uploads(100, 200, 2**53 - 1)
    lowered = capped(replies, 10)
    assert weights(replies) == [100, 200, 2**53 - 1]
    assert [first is second for first, second in zip(replies, lowered, strict=True)] == [True, True, False]
    assert capped(replies, 0) == replies


def test_one_client_alone_does_not_replace_the_model():
    strategy = FlowerStrategy(FedAvg(**ANY_SIZE))
    replies = uploads(100, 100, 100, 2**53 - 1)
    free, _ = strategy.aggregate_train(1, capped(replies, 0))
    held, _ = strategy.aggregate_train(1, capped(replies, 10))
    assert from_record(free)["weight"].numpy() == pytest.approx(3.0)
    assert from_record(held)["weight"].numpy() == pytest.approx((0 + 1 + 2 + 10 * 3) / 13)
