"""Holds the algorithms of the generative workloads: Flower's own averages around any registered model's training.

FedAvg: McMahan et al., AISTATS 2017. FedProx: Li et al., MLSys 2020; its term is added on the clients, by the weight
that Flower's strategy sends. FedAvgM: Hsu et al. 2019. FedAdam: Reddi et al., ICLR 2021. Where the clients' moments are
averaged too, FedAvg and FedProx are wrapped in `strategies.shared_moments`.
"""

import time
from abc import abstractmethod
from typing import ClassVar, cast

import torch
from flwr.app import Message
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, FedProx, Strategy
from torch import Tensor, nn

from fmtda.adaptation.batches import shuffled_batches
from fmtda.domains.client import Client
from fmtda.generative.model import GenerativeModel
from fmtda.generative.registry import MODELS, build
from fmtda.generative.training import descend, held_out_loss, step_sizes
from fmtda.protocol.metrics import number
from fmtda.protocol.moments import moments_of, parted, restore_moments
from fmtda.protocol.records import reply_to, to_record
from fmtda.protocol.runtime import choose_device
from fmtda.protocol.seeds import generator_for
from fmtda.protocol.settings import GenerativeSettings, Parameters
from fmtda.protocol.tables import SettingsError, setting
from fmtda.strategies.algorithm import CONFIG, FederatedAlgorithm, FederatedStrategy, received
from fmtda.strategies.flower import ANY_SIZE, FlowerStrategy
from fmtda.strategies.shared_moments import SharedMoments

PROXIMAL = "proximal-mu"
"""The key under which Flower's FedProx sends the weight of its term."""


FRESH = {"training.moments": "fresh"}
"""The usual setting of those whose server does more than average."""


class GenerativeAlgorithm(FederatedAlgorithm):
    """This is a federated algorithm that trains a generative model.

    On a client, the result is a function of the message, its data and the seed: nothing is kept. Its Adam starts afresh
    every round, or where the one shared by all clients stands, if the message brings that along.

    Attributes
    ----------
    only_averages : bool
        Whether the server does nothing but average, so that it can average the clients' moments too.
    """

    kind = "generative"
    answers = {"train": (number("loss"),), "evaluate": (number("loss"),)}
    only_averages: ClassVar[bool] = False

    @abstractmethod
    def flower(self, settings: GenerativeSettings) -> Strategy:
        """Make Flower's strategy, with `ANY_SIZE`."""

    def server(self, settings: GenerativeSettings, model: nn.Module) -> FederatedStrategy:
        """Make the server's side, for clients that train this model."""
        flower = self.flower(settings)
        return SharedMoments(flower, model) if settings.training.moments == "averaged" else FlowerStrategy(flower)

    def check(self, settings: GenerativeSettings) -> None:
        """Refuse moments that this server can't average."""
        if settings.training.moments == "averaged" and not self.only_averages:
            raise SettingsError(
                f"training.moments=averaged: strategy={self.name} does more than average; take training.moments=fresh"
            )

    def train(self, message: Message, client: Client) -> Message:
        """Make gradient steps from the global model; with FedProx, held near it.

        Raises
        ------
        LossNotFinite
            If the loss is NaN or infinite; nothing is uploaded then.
        """
        began = time.perf_counter()
        settings = cast(GenerativeSettings, client.settings)
        training = settings.training
        model, moments = received_model(message, settings)
        optimiser = torch.optim.Adam(model.parameters(), lr=training.learning_rate, fused=True)
        restore_moments(optimiser, model, moments)
        examples = MODELS[settings.workload].kind.examples(client.train.inputs, settings)
        generator = client.generator("generative training")
        loss = descend(
            model,
            optimiser,
            examples,
            shuffled_batches(len(examples), training.batch, training.steps, generator),
            step_sizes(settings, client.round),
            generator,
            gradient_clip=training.gradient_clip,
            proximal_mu=float(cast(float, message.content.config_records[CONFIG].get(PROXIMAL, 0.0))),
        )
        metrics = {"num-examples": len(examples), "seconds": time.perf_counter() - began, "loss": loss}
        upload = model.state_dict() | (moments_of(optimiser, model) if moments else {})
        return reply_to(message, client.name, metrics, model=to_record(upload))

    def evaluate(self, message: Message, client: Client) -> Message:
        """Answer with the model's loss on the client's test examples, with the same noise in every round."""
        began = time.perf_counter()
        settings = cast(GenerativeSettings, client.settings)
        examples = MODELS[settings.workload].kind.examples(client.test.inputs, settings)
        metrics: dict[str, int | float] = {"num-examples": len(examples)}
        if len(examples):
            model, _ = received_model(message, settings)
            noise = generator_for(settings.seed, client.name, "held-out loss")
            metrics["loss"] = held_out_loss(model, examples, noise)
        return reply_to(message, client.name, {**metrics, "seconds": time.perf_counter() - began})


class GenerativeFedAvg(GenerativeAlgorithm):
    """Averages the clients' models, weighted by examples."""

    name = "fedavg"
    title = "the clients' models are averaged"
    only_averages = True

    def flower(self, settings: GenerativeSettings) -> Strategy:
        return FedAvg(**ANY_SIZE)


class FedProxParameters(Parameters):
    """Holds the parameters of FedProx."""

    mu: float = setting(0.01, ge=0, description="weight of half the squared distance to the server's model")


class GenerativeFedProx(GenerativeAlgorithm):
    """Averages the models of clients that are held near the global one."""

    name = "fedprox"
    title = "FedAvg whose clients are held near the global model"
    parameters = FedProxParameters
    only_averages = True

    def flower(self, settings: GenerativeSettings) -> Strategy:
        return FedProx(**ANY_SIZE, proximal_mu=settings.own(FedProxParameters).mu)


class FedAvgMParameters(Parameters):
    """Holds the parameters of FedAvgM."""

    learning_rate: float = setting(1.0, server_only=True, gt=0, description="step size on the clients' mean update")
    momentum: float = setting(0.9, server_only=True, ge=0, lt=1, description="share of the last step in the next")


class GenerativeFedAvgM(GenerativeAlgorithm):
    """Averages with momentum on the server."""

    name = "fedavgm"
    title = "FedAvg with momentum on the server"
    usual = FRESH
    parameters = FedAvgMParameters

    def flower(self, settings: GenerativeSettings) -> Strategy:
        own = settings.own(FedAvgMParameters)
        return FedAvgM(**ANY_SIZE, server_learning_rate=own.learning_rate, server_momentum=own.momentum)


class FedAdamParameters(Parameters):
    """Holds the parameters of FedAdam."""

    learning_rate: float = setting(
        0.01, server_only=True, gt=0, description="eta: step size on the clients' mean update"
    )
    beta1: float = setting(0.9, server_only=True, ge=0, lt=1, description="of the first moment")
    beta2: float = setting(0.99, server_only=True, ge=0, lt=1, description="of the second moment")
    tau: float = setting(1e-3, server_only=True, gt=0, description="added to the root of the second moment")


class GenerativeFedAdam(GenerativeAlgorithm):
    """Makes steps of Adam on the server."""

    name = "fedadam"
    title = "Adam on the server, over the clients' mean update"
    usual = FRESH
    parameters = FedAdamParameters

    def flower(self, settings: GenerativeSettings) -> Strategy:
        own = settings.own(FedAdamParameters)
        return FedAdam(**ANY_SIZE, eta=own.learning_rate, beta_1=own.beta1, beta_2=own.beta2, tau=own.tau)


class Pooled(GenerativeFedAvg):
    """Trains on the clients' data in one process, as the reference for the federated ones (`server.pooled`)."""

    name = "pooled-data"
    title = "no federation: the clients' data in one process"
    federated = False


def received_model(message: Message, settings: GenerativeSettings) -> tuple[GenerativeModel, dict[str, Tensor]]:
    """Make the global model that a message brought, on the run's device, and Adam's moments where they came along."""
    model = build(settings.workload, settings, seed=0)
    weights, moments = parted(received(message))
    model.load_state_dict(weights)
    return model.to(choose_device(settings.device)), moments
