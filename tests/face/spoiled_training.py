"""A client that misbehaves, for a copy of the app: `pen` spoils its uploads as the variable SPOIL says.

``nothing``: it fails and sends no upload. ``junk``: NaN in round 1, 100 MB in round 2, other names in round 3.
"""

import os

import numpy as np
from flwr.app import Array, Message

from fmtda.domains.client import Client
from fmtda.strategies.dualadapt.client import DualAdapt

honest_train = DualAdapt.train


def train(self: DualAdapt, message: Message, client: Client) -> Message:
    """What `DualAdapt.train` does, spoiled."""
    reply = honest_train(self, message, client)
    if client.name != "pen/0000":
        return reply
    if os.environ["SPOIL"] == "nothing":
        raise RuntimeError("nothing is sent")
    classifier = reply.content["classifier"]
    if client.round == 1:
        values = classifier["weight"].numpy().copy()
        values[0, 0] = np.nan
        classifier["weight"] = Array(values)
    elif client.round == 2:
        classifier["weight"] = Array(np.zeros(25_000_000, np.float32))
    else:
        classifier["fc.weight"] = classifier.pop("weight")
    return reply
