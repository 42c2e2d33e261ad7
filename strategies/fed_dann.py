"""Holds federated DANN: the server sends source features, from which clients make theirs indistinguishable.

Ganin et al., "Domain-adversarial training of neural networks", JMLR 2016. A client has no source, so the server sends
it the features of one source batch a local step: (steps, rows, D) floats, which count among the bytes. G and the
discriminator are averaged, and the average is fine-tuned on the source.

Our choice: BatchNorm keeps its statistics on the clients, as the server's source features were made with them;
otherwise the discriminator would tell the mode and not the domain.
"""

import time
from collections.abc import Iterable
from statistics import fmean
from typing import ClassVar, cast

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from torch import Tensor, nn
from torch.nn import functional

from fmtda.adaptation.batches import shuffled_batches
from fmtda.adaptation.dann import DANN, Discriminated, Discriminator, reversal_weight
from fmtda.adaptation.network import Network
from fmtda.adaptation.registry import empty_network, filled
from fmtda.domains.client import Client
from fmtda.protocol.metrics import number
from fmtda.protocol.records import from_record, reply_to, to_record
from fmtda.protocol.seeds import seed_for
from fmtda.protocol.settings import AdaptationSettings
from fmtda.protocol.tables import setting
from fmtda.strategies.algorithm import Algorithm, BenchmarkRow, FederatedStrategy, LabelledSource, adaptation, received
from fmtda.strategies.fine_tuned_average import FineTunedAverage, FineTunedParameters

SOURCE_FEATURES = "source_features"
"""The record of the features that a client gets."""

DISCRIMINATOR = "discriminator."
"""How the names of its arrays begin."""


class FedDANNParameters(FineTunedParameters):
    """Holds the parameters of federated DANN."""

    needs_rounds: ClassVar[bool] = True  # the weight of the reversed gradient follows the steps of all rounds

    places: int = setting(64, ge=0, description="segmentation: places of a picture that are told apart; 0: all")


class FedDANN(Algorithm):
    """Makes G and a discriminator of domains play against each other on the clients."""

    name = "fed-dann"
    title = "clients against a discriminator, source features sent"
    parameters = FedDANNParameters
    rows = (BenchmarkRow(name, title),)
    answers = {"train": (number("domain-loss"),)}

    def server(self, settings: AdaptationSettings, network: Network, source: LabelledSource) -> FederatedStrategy:
        return FedDANNServer(settings, network, source)

    def train(self, message: Message, client: Client) -> Message:
        """Make `fed-dann.local-steps` steps; the whole model is uploaded."""
        began = time.perf_counter()
        settings = adaptation(client)
        own = settings.own(FedDANNParameters)
        built = empty_network(settings)
        with torch.device("meta"):
            extended = Discriminated(built, Discriminator(built.feature_size))
        network = cast(Discriminated, filled(extended, received(message), settings.device))
        network.eval().requires_grad_(True)
        inputs = client.inputs(client.train)
        source_features = received(message, SOURCE_FEATURES)["features"].to(inputs.device)
        game = DANN(network, own.local_learning_rate, own.weight_decay)
        losses = []
        generator = client.generator("mini-batches")
        batches = shuffled_batches(len(inputs), own.local_batch, own.local_steps, generator)
        for step, (chosen, features) in enumerate(zip(batches, source_features, strict=True)):
            target_features = network.features(inputs[chosen], own.places, generator)
            progress = (client.round - 1 + step / own.local_steps) / settings.rounds
            losses.append(game.mislead(features, target_features, reversal_weight(progress)))
        metrics = {"num-examples": len(inputs), "seconds": time.perf_counter() - began, "domain-loss": fmean(losses)}
        return reply_to(message, client.name, metrics, model=to_record(network.state_dict()))


class FedDANNServer(FineTunedAverage):
    """Averages G, F and the discriminator, which travel both ways; to predict, clients get G and F alone."""

    def __init__(self, settings: AdaptationSettings, network: Network, source: LabelledSource) -> None:
        discriminator = Discriminator.seeded(network.feature_size, seed_for(settings.seed, "discriminator"))
        device = next(network.parameters()).device
        super().__init__(settings, Discriminated(network, discriminator.to(device)), source)

    def initial(self, arrays: ArrayRecord) -> ArrayRecord:
        return to_record({**self.network.state_dict(), **from_record(arrays)})

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Broadcast the model and the source features of every local step, the same to all clients."""
        self.network.load_state_dict(from_record(arrays))
        features = to_record({"features": self._source_features(self.generator(server_round, "source features"))})
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for message in messages:
            message.content[SOURCE_FEATURES] = features
        return messages

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send what predicts."""
        network = ArrayRecord({name: array for name, array in arrays.items() if not name.startswith(DISCRIMINATOR)})
        return super().configure_evaluate(server_round, network, config, grid)

    def source_loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Compute the cross-entropy."""
        return functional.cross_entropy(self.network(inputs), labels, ignore_index=-1)

    def fine_tuned(self) -> list[nn.Parameter]:
        return [*self.network.feature_extractor.parameters(), *self.network.classifier.parameters()]

    @torch.no_grad()
    def _source_features(self, generator: torch.Generator) -> Tensor:
        """(steps, rows, D): a row an example, or one of `fed-dann.places` places of a picture."""
        own, network = self.settings.own(FedDANNParameters), self.network.eval()
        batches = (self.source.draw(own.local_batch, generator)[0] for _ in range(own.local_steps))
        return torch.stack([network.features(inputs, own.places, generator) for inputs in batches])
