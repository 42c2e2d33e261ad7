"""How a client joins a federation under way: it fits its mixture W_T to its features, and uploads nothing else.

The server finds the nearest known domains by it (`server.newcomers`); what these give the client to start from comes
with its later messages, and is used in `clients.adaptation`.
"""

import time

from flwr.app import Message

from fmtda.adaptation.batches import shuffled_batches
from fmtda.adaptation.mixture import Mixture
from fmtda.adaptation.network import Network
from fmtda.clients import privacy
from fmtda.clients.identity import Client
from fmtda.clients.mixture import FollowingMixture
from fmtda.clients.network import feature_rows, inputs_of, received_network, use_own_statistics
from fmtda.protocol.records import reply_to, to_record


def join(message: Message, client: Client) -> Message:
    """Algorithm 1 without its lines 7 and 10: only W_T follows the features, from W_S on.

    The mixture is, bit by bit, the one that the client would upload if it trained in this round, so that the server
    compares like with like.
    """
    began = time.perf_counter()
    settings = client.settings
    network = received_network(message, client)
    source_mixture = Mixture.from_arrays({n: a.numpy() for n, a in message.content["source_mixture"].items()})
    if settings.private:
        mixture, told = privacy.fit_mixture(network, source_mixture, client)
    else:
        mixture, told = _follow(network, source_mixture, client), {}
    metrics = {"num-examples": len(client.train), "seconds": time.perf_counter() - began, **told}
    return reply_to(message, client.name, metrics, mixture=to_record(mixture.arrays()))


def _follow(network: Network, source_mixture: Mixture, client: Client) -> Mixture:
    """The mixture's stepwise EM over the mini-batches that training would take."""
    settings = client.settings
    inputs = inputs_of(client, client.train)
    use_own_statistics(network, inputs, client)
    features = feature_rows(network, inputs, settings, client.generator("places"))
    mixture = FollowingMixture(source_mixture.to(inputs.device), features, client)
    generator = client.generator("mini-batches")
    for chosen in shuffled_batches(len(features), settings.client_batch, settings.client_steps, generator):
        batch = chosen.to(inputs.device)
        mixture.update(batch, features[batch])
    return mixture.finish()
