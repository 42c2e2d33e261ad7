"""Federated DANN's client side: G learns to give features like the source's, which the server sent."""

import time
from statistics import fmean

from flwr.app import Message

from fmtda.adaptation.batches import shuffled_batches
from fmtda.adaptation.dann import DANN, Discriminated, Discriminator, reversal_weight
from fmtda.adaptation.network import Network
from fmtda.clients.identity import Client
from fmtda.clients.network import inputs_of, received_network
from fmtda.protocol.records import from_record, reply_to, to_record


def train(message: Message, client: Client) -> Message:
    """`local-steps` steps of G and the discriminator against each other; the whole model is uploaded.

    The weight of the reversed gradient follows the steps of all `rounds`, so that a run resumed for more of them is
    another one. BatchNorm keeps its statistics, as the server's source features were made with them; otherwise the
    discriminator would tell the mode and not the domain (our choice).
    """
    began = time.perf_counter()
    settings = client.settings
    network = received_network(message, client, extended=_discriminated).requires_grad_(True)
    inputs = inputs_of(client, client.train)
    source_features = from_record(message.content["source_features"])["features"].to(inputs.device)
    game = DANN(network, settings.local_learning_rate, settings.weight_decay)
    losses = []
    generator = client.generator("mini-batches")
    batches = shuffled_batches(len(inputs), settings.local_batch, settings.local_steps, generator)
    for step, (chosen, features) in enumerate(zip(batches, source_features, strict=True)):
        target_features = network.features(inputs[chosen], settings.places, generator)
        progress = (client.round - 1 + step / settings.local_steps) / settings.rounds
        losses.append(game.mislead(features, target_features, reversal_weight(progress)))
    metrics = {"num-examples": len(inputs), "seconds": time.perf_counter() - began, "domain-loss": fmean(losses)}
    return reply_to(message, client.name, metrics, model=to_record(network.state_dict()))


def _discriminated(network: Network) -> Discriminated:
    return Discriminated(network, Discriminator(network.feature_size))
