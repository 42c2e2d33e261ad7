"""The network as a client has it: received from the server, fed with the client's examples, with its own statistics."""

from collections.abc import Mapping
from typing import cast

import torch
from flwr.app import Message
from torch import Tensor

from fmtda.adaptation.augmentations import AUGMENTATIONS
from fmtda.adaptation.inputs import Inputs
from fmtda.adaptation.mixture import hold_out
from fmtda.adaptation.networks import Network, build
from fmtda.adaptation.self_training import predicted_shares
from fmtda.domains.client import Client
from fmtda.domains.examples import Examples
from fmtda.domains.registry import family
from fmtda.protocol.records import from_record
from fmtda.protocol.runtime import choose_device
from fmtda.protocol.seeds import seed_for
from fmtda.protocol.settings import AdaptationSettings


def adaptation_settings(client: Client) -> AdaptationSettings:
    """Return the client's settings, which are a run's of domain adaptation."""
    return cast(AdaptationSettings, client.settings)


def received_state(message: Message, record: str = "model") -> dict[str, Tensor]:
    """Unpack the named tensors of one of a message's records."""
    return from_record(message.content.array_records[record])


def empty_network(settings: AdaptationSettings) -> Network:
    """Build the run's network without weights: a state is to bring them."""
    with torch.device("meta"):
        precision = getattr(torch, settings.network.precision)
        return build(settings.network.name, len(settings.class_names), settings.shape, 0, precision)


def filled(network: Network, state: Mapping[str, Tensor], settings: AdaptationSettings) -> Network:
    """Give a network that `empty_network` built, or one that extends it, its weights, on the run's device.

    Entries of the state that the network doesn't have are left out: a model may travel with more than what predicts.
    """
    network.load_state_dict({name: state[name] for name in network.state_dict() if name in state}, assign=True)
    return network.to(choose_device(settings.device))


def inputs_of(client: Client, examples: Examples) -> Inputs:
    """Make network inputs of a client's examples, on its device."""
    settings = adaptation_settings(client)
    augmentation = AUGMENTATIONS[family(settings.data.name).kind]
    return Inputs(examples.inputs, augmentation, settings.inputs.standardise, choose_device(settings.device))


def expected_shares(network: Network, inputs: Inputs, client: Client) -> Tensor | None:
    """Say how often self-training should expect each class, (C,): as G and F_g predict it where labels are maps.

    None is equally often. Pixels are never shared out so: there are streets with more sky than people everywhere.
    """
    return predicted_shares(network, inputs) if family(client.settings.data.name).segmentation else None


def mixture_parts(client: Client, examples: int) -> tuple[Tensor, Tensor]:
    """Divide a client's examples: indices of those that a mixture is fitted to, and that its quantiles come from.

    The same in every round, so that no example is ever of both kinds.
    """
    fitted, held_out = hold_out(examples, seed_for(client.settings.seed, client.name, "mixture hold-out"))
    return torch.from_numpy(fitted), torch.from_numpy(held_out)
