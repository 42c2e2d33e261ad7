"""The network as a client has it: received from the server, fed with the client's examples, with its own statistics."""

from collections.abc import Callable, Mapping

import torch
from flwr.app import ArrayRecord, Message
from torch import Tensor

from fmtda.adaptation.batches import forward_slices
from fmtda.adaptation.inputs import Inputs
from fmtda.adaptation.network import Network
from fmtda.adaptation.registry import AUGMENTATIONS, build
from fmtda.adaptation.self_training import adapt_statistics, predicted_shares
from fmtda.clients.identity import Client
from fmtda.domains.examples import Examples
from fmtda.domains.registry import family
from fmtda.protocol.records import from_record
from fmtda.protocol.runtime import choose_device
from fmtda.protocol.settings import Settings

Extension = Callable[[Network], Network]


def received_network(message: Message, client: Client, extended: Extension = lambda network: network) -> Network:
    """G and F_g as the message brought them, frozen, in evaluation mode, on the client's device.

    `extended` adds the modules that a strategy's model has beside these two.
    """
    record: ArrayRecord = message.content["model"]
    return loaded_network(from_record(record), client.settings, extended).requires_grad_(False).eval()


def loaded_network(
    state: Mapping[str, Tensor], settings: Settings, extended: Extension = lambda network: network
) -> Network:
    """The run's network with this state, on the client's device."""
    with torch.device("meta"):  # no initial weights are drawn: the state brings them
        precision = getattr(torch, settings.precision)
        built = build(settings.network, len(settings.class_names), settings.shape, 0, precision)
        network = extended(built)
    network.load_state_dict(state, assign=True)
    return network.to(choose_device(settings.device))


def inputs_of(client: Client, examples: Examples) -> Inputs:
    """A client's examples as network inputs, on its device."""
    settings = client.settings
    augmentation = AUGMENTATIONS[family(settings.data).kind]
    return Inputs(examples.inputs, augmentation, settings.standardise, choose_device(settings.device))


def use_own_statistics(network: Network, inputs: Inputs, client: Client) -> None:
    """The extra `local-batch-norm`: move G's BatchNorm statistics towards those of the client's inputs, in place.

    The client chooses its weight, up to `largest_weight`.
    """
    settings, examples = client.settings, len(inputs)
    if settings.local_batch_norm and examples > 1:
        adapt_statistics(network, inputs, largest_weight(examples, settings), client.generator("statistics"))


def largest_weight(examples: int, settings: Settings) -> float:
    """Of a client's own statistics, in [0, 1): a few examples give noisy ones."""
    return settings.batch_norm_share * examples / (examples + settings.batch_norm_prior)


def expected_shares(network: Network, inputs: Inputs, client: Client) -> Tensor | None:
    """How often self-training should expect each class, (C,): as G and F_g predict it where labels are maps, else None.

    None is equally often. Pixels are never shared out so: there are streets with more sky than people everywhere.
    """
    return predicted_shares(network, inputs) if family(client.settings.data).segmentation else None


@torch.no_grad()
def feature_rows(network: Network, inputs: Inputs, settings: Settings, generator: torch.Generator) -> Tensor:
    """Features z (R, D) of all inputs: one row an example, or `places` random places of every picture's map."""
    if len(inputs) == 0:
        return torch.zeros(0, network.feature_size, device=inputs.device)
    return torch.cat([network.features(inputs[part], settings.places, generator) for part in forward_slices(inputs)])
