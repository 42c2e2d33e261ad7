"""AdaBN's client side: F_g on G with BatchNorm statistics that are wholly the client's own (Li et al. 2016)."""

import time

from flwr.app import Message

from fmtda.adaptation.batch_norm import batch_norm_state, reestimate
from fmtda.adaptation.network import Network
from fmtda.clients import local_part
from fmtda.clients.evaluation import report
from fmtda.clients.identity import Client
from fmtda.clients.network import inputs_of, received_network


def evaluate(message: Message, client: Client) -> Message:
    """Re-estimate the statistics on the client's training examples, keep them in its folder, and predict.

    A client with a single example, which has no variance, keeps the server's statistics.
    """
    began = time.perf_counter()
    return report(message, client, own_network(message, client), began)


def own_network(message: Message, client: Client) -> Network:
    """F_g on G with the client's own statistics."""
    network = received_network(message, client)
    inputs = inputs_of(client, client.train)
    if len(inputs) > 1:
        reestimate(network, inputs, client_weight=1.0)
    statistics = batch_norm_state(network.feature_extractor)
    local_part.write(client.folder, local_part.LOCALISED, local_part.prefixed("batch-norm", statistics))
    return network
