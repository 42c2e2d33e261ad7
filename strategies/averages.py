"""Limits how much a client counts where models are averaged: what it says it has trained on is its own word.

Flower's averages weight a client by its `num-examples`. The server holds that to what the client said it has at the
start, which is the client's word too; here it is held to a multiple of the round's median, so that no client's word
alone replaces the model.

Our choice: the median, and of an even number of clients the lower one, which of two is the smaller.
"""

import copy
from collections.abc import Sequence
from statistics import median_low

from flwr.app import Message, MetricRecord, RecordDict

from fmtda.protocol.metrics import NUM_EXAMPLES


def capped(replies: Sequence[Message], cap: float) -> list[Message]:
    """Lower the weights above `cap` medians of all; the replies themselves keep what the clients said.

    Parameters
    ----------
    replies
        Checked uploads of a round; one without `num-examples` is left as it is.
    cap
        0 for no limit.
    """
    told = [reply.content.metric_records["metrics"].get(NUM_EXAMPLES) for reply in replies]
    weights = [weight for weight in told if isinstance(weight, int)]
    if not cap or not weights:
        return list(replies)
    most = max(1, int(cap * median_low(weights)))
    return [
        _weighted(reply, most) if isinstance(weight, int) and weight > most else reply
        for reply, weight in zip(replies, told, strict=True)
    ]


def _weighted(reply: Message, weight: int) -> Message:
    """A copy of the reply that counts for less."""
    copied = copy.copy(reply)
    metrics = {**reply.content.metric_records["metrics"], NUM_EXAMPLES: weight}
    copied.content = RecordDict({**reply.content, "metrics": MetricRecord(metrics)})
    return copied
