"""Naive federated MCD's client side: G, F_1 and F_2 play MCD's game on the client's examples, all are uploaded."""

import copy
import time
from statistics import fmean

from flwr.app import Message

from fmtda.adaptation.batches import shuffled_batches
from fmtda.adaptation.mcd import MCD, TwoHeads
from fmtda.adaptation.network import Network
from fmtda.clients.evaluation import report
from fmtda.clients.identity import Client
from fmtda.clients.network import inputs_of, received_network
from fmtda.protocol.records import reply_to, to_record


def train(message: Message, client: Client) -> Message:
    """`local-steps` times MCD's steps B, which has no source term here, and C; BatchNorm in training mode, as there."""
    began = time.perf_counter()
    settings = client.settings
    network = received_network(message, client, extended=_two_heads).requires_grad_(True)
    inputs = inputs_of(client, client.train)
    game = MCD(network, settings.local_learning_rate, settings.weight_decay)
    maximised, minimised = [], []
    generator = client.generator("mini-batches")
    for chosen in shuffled_batches(len(inputs), settings.local_batch, settings.local_steps, generator):
        target = inputs[chosen]
        network.train(len(target) > 1)  # one example has no variance for BatchNorm to go by
        maximised.append(game.separate(target))
        minimised.append(game.agree(target))
    metrics = {
        "num-examples": len(inputs),
        "seconds": time.perf_counter() - began,
        "discrepancy-maximised": fmean(maximised),
        "discrepancy": fmean(minimised),
    }
    return reply_to(message, client.name, metrics, model=to_record(network.state_dict()))


def evaluate(message: Message, client: Client) -> Message:
    """Predict by the mean of both classifiers."""
    began = time.perf_counter()
    return report(message, client, both_heads(message, client), began)


def both_heads(message: Message, client: Client) -> TwoHeads:
    """G with both classifiers as the message brought them; their mean predicts."""
    return received_network(message, client, extended=_two_heads)


def _two_heads(network: Network) -> TwoHeads:
    return TwoHeads(network, copy.deepcopy(network.classifier))
