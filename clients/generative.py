"""The generative workloads' client side: any registered model, trained on the client's examples and sent back whole.

The result is a function of the message, the client's data and the seed: nothing is kept on the client. Its Adam starts
afresh every round, or where the one shared by all clients stands, if the message brings that along.
"""

import time

import torch
from flwr.app import Message

from fmtda.adaptation.batches import shuffled_batches
from fmtda.clients.identity import Client
from fmtda.generative.model import GenerativeModel
from fmtda.generative.registry import MODELS, build
from fmtda.generative.training import descend, held_out_loss, step_sizes
from fmtda.protocol.generative_settings import GenerativeSettings
from fmtda.protocol.moments import moments_of, parted, restore_moments
from fmtda.protocol.records import from_record, reply_to, to_record
from fmtda.protocol.runtime import choose_device
from fmtda.protocol.seeds import generator_for


def train(message: Message, client: Client) -> Message:
    """`local-steps` gradient steps from the global model; with FedProx, held near it.

    Raises
    ------
    LossNotFinite
        If the loss is NaN or infinite; nothing is uploaded then.
    """
    began = time.perf_counter()
    settings: GenerativeSettings = client.settings
    model, moments = received_model(message, client)
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.local_learning_rate, fused=True)
    restore_moments(optimiser, model, moments)
    examples = MODELS[settings.workload].kind.examples(client.train.inputs, settings)
    generator = client.generator("generative training")
    loss = descend(
        model,
        optimiser,
        examples,
        shuffled_batches(len(examples), settings.local_batch, settings.local_steps, generator),
        step_sizes(settings, client.round),
        generator,
        gradient_clip=settings.gradient_clip,
        proximal_mu=settings.proximal_mu if settings.strategy == "fedprox" else 0.0,
    )
    metrics = {"num-examples": len(examples), "seconds": time.perf_counter() - began, "loss": loss}
    upload = model.state_dict() | (moments_of(optimiser, model) if moments else {})
    return reply_to(message, client.name, metrics, model=to_record(upload))


def evaluate(message: Message, client: Client) -> Message:
    """The model's loss on the client's test examples, with the same noise in every round."""
    began = time.perf_counter()
    settings: GenerativeSettings = client.settings
    examples = MODELS[settings.workload].kind.examples(client.test.inputs, settings)
    metrics = {"num-examples": len(examples)}
    if len(examples):
        model, _ = received_model(message, client)
        metrics["loss"] = held_out_loss(model, examples, generator_for(settings.seed, client.name, "held-out loss"))
    return reply_to(message, client.name, {**metrics, "seconds": time.perf_counter() - began})


def received_model(message: Message, client: Client) -> tuple[GenerativeModel, dict[str, torch.Tensor]]:
    """The global model as the message brought it, on the client's device, and Adam's moments where they came along."""
    settings = client.settings
    model = build(settings.workload, settings, seed=0)
    weights, moments = parted(from_record(message.content["model"]))
    model.load_state_dict(weights)
    return model.to(choose_device(settings.device)), moments
