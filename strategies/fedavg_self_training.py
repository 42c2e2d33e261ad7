"""Holds FedAvg with self-training: clients train G and F on confident pseudo-labels, Flower's FedAvg averages them.

McMahan et al., "Communication-efficient learning of deep networks from decentralized data", AISTATS 2017, on
pseudo-labels (Lee, "Pseudo-label", 2013).
"""

import time

from flwr.app import Message
from flwr.serverapp.strategy import FedAvg

from fmtda.adaptation.network import Network
from fmtda.adaptation.self_training import adapt_network, predicted_shares
from fmtda.domains.client import Client
from fmtda.protocol.metrics import number, share
from fmtda.protocol.records import reply_to, to_record
from fmtda.protocol.settings import AdaptationSettings, Parameters
from fmtda.protocol.tables import setting
from fmtda.strategies.algorithm import Algorithm, BenchmarkRow, FederatedStrategy, LabelledSource
from fmtda.strategies.flower import ANY_SIZE, FlowerStrategy


class SelfTrainingParameters(Parameters):
    """Holds the parameters of FedAvg with self-training."""

    local_steps: int = setting(by_data="network-steps", ge=1, description="gradient steps of a client a round")
    local_batch: int = setting(by_data="network-batch", ge=2, description="examples in one of them")
    learning_rate: float = setting(1e-3, gt=0, description="Adam step size of them, falling to zero")
    confidence: float = setting(0.9, ge=0, lt=1, description="pseudo-labels count above this probability")


class FedAvgSelfTraining(Algorithm):
    """Trains the whole network on a client's own confident predictions, and uploads all of it."""

    name = "fedavg-self-training"
    title = "clients train on confident pseudo-labels, models are averaged"
    parameters = SelfTrainingParameters
    rows = (BenchmarkRow(name, title),)
    answers = {"train": (number("loss"), share("confident"))}

    def server(self, settings: AdaptationSettings, network: Network, source: LabelledSource) -> FederatedStrategy:
        return FlowerStrategy(FedAvg(**ANY_SIZE))

    def train(self, message: Message, client: Client) -> Message:
        """Make local steps on pseudo-labels; labels of the client are never looked at."""
        began = time.perf_counter()
        own = client.settings.own(SelfTrainingParameters)
        network, inputs = self.received(message, client), client.inputs(client.train)
        losses = adapt_network(
            network.requires_grad_(True),
            inputs,
            steps=own.local_steps,
            batch_size=own.local_batch,
            learning_rate=own.learning_rate,
            threshold=own.confidence,
            generator=client.generator("self-training"),
            class_shares=predicted_shares(network, inputs) if client.segmentation else None,
        )
        metrics = {"num-examples": len(client.train), "seconds": time.perf_counter() - began, **losses}
        return reply_to(message, client.name, metrics, model=to_record(network.state_dict()))
