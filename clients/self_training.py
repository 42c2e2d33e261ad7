"""FedAvg self-training's client side: train the whole network on its own confident predictions, upload all of it."""

import time

import torch
from flwr.app import Message

from fmtda.adaptation.self_training import adapt_network
from fmtda.clients.identity import Client
from fmtda.clients.network import expected_shares, inputs_of, received_network
from fmtda.protocol.records import reply_to, to_record


def train(message: Message, client: Client) -> Message:
    """Local steps on pseudo-labels; labels of the client are never looked at."""
    began = time.perf_counter()
    settings = client.settings
    network, inputs = received_network(message, client), inputs_of(client, client.train)
    losses = adapt_network(
        network.requires_grad_(True),
        inputs,
        steps=settings.local_steps,
        batch_size=settings.local_batch,
        learning_rate=settings.personalise_learning_rate,
        threshold=settings.confidence,
        generator=client.generator("self-training"),
        class_shares=expected_shares(network, inputs, client),
    )
    metrics = {"num-examples": len(client.train), "seconds": time.perf_counter() - began, **losses}
    state: dict[str, torch.Tensor] = network.state_dict()
    return reply_to(message, client.name, metrics, model=to_record(state))
