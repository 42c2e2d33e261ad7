"""Lists the networks by name, and the augmentations by kind of inputs.

A new network is a function in a file of its own and a line here, or an entry point of another package in the group
``fmtda.networks``.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fmtda.adaptation.augment import Augmentation
from fmtda.adaptation.augment_digits import DigitAugmentation
from fmtda.adaptation.augment_features import FeatureAugmentation
from fmtda.adaptation.augment_photographs import PhotographAugmentation
from fmtda.adaptation.augment_scenes import SceneAugmentation
from fmtda.adaptation.network import Network
from fmtda.protocol.printable import printable
from fmtda.protocol.registry import Registry, UnknownName
from fmtda.protocol.runtime import choose_device
from fmtda.protocol.settings import AdaptationSettings

Builder = Callable[[int, tuple[int, ...]], Network]

NETWORKS: Registry[Builder] = Registry(
    "fmtda.networks",
    {
        "small-cnn": "fmtda.adaptation.small_networks:small_cnn",
        "mcd-digits": "fmtda.adaptation.small_networks:mcd_digits",
        "m3sda-digits": "fmtda.adaptation.small_networks:m3sda_digits",
        "mlp": "fmtda.adaptation.small_networks:mlp",
        "resnet18": "fmtda.adaptation.resnet:resnet18",
        "resnet50": "fmtda.adaptation.resnet:resnet50",
        "lraspp": "fmtda.adaptation.segmentation_networks:lraspp",
        "deeplabv3": "fmtda.adaptation.segmentation_networks:deeplabv3",
    },
)

AUGMENTATIONS: dict[str, Augmentation] = {
    "digits": DigitAugmentation(),
    "photographs": PhotographAugmentation(),
    "scenes": SceneAugmentation(),
    "features": FeatureAugmentation(),
}
"""By `domains.family.Family.kind`."""


def build(
    name: str, classes: int, input_shape: tuple[int, ...], seed: int, precision: torch.dtype = torch.float32
) -> Network:
    """Build a network of the registry with seeded weights; torch's global generator is left as it was.

    Parameters
    ----------
    name : str
        A key of `NETWORKS`.
    classes : int
        C, the number of classes.
    input_shape : tuple of int
        Of one input: (channels, height, width) for pictures, (D,) for feature vectors.
    seed : int
        Seed of the initial weights; equal seeds give equal weights.
    precision : torch.dtype
        Of what G computes, see `FeatureExtractor`.

    Raises
    ------
    ValueError
        If the name is not in `NETWORKS`, or the pictures are too small for the network.
    """
    builder = _builder(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            network = builder(classes, input_shape)
        except TypeError as error:
            raise ValueError(f"network.name={name}: it builds none of classes and input shape ({error})") from error
    if not isinstance(network, Network):
        raise ValueError(f"network.name={name}: this makes no fmtda.adaptation.network.Network")
    network.feature_extractor.precision = precision
    return network


def _builder(name: str) -> Builder:
    try:
        return NETWORKS[name]
    except UnknownName as error:
        raise ValueError(f"network.name={printable(name)}: {error}") from None


def empty_network(settings: AdaptationSettings) -> Network:
    """Build a run's network without weights: a state is to bring them (`filled`)."""
    with torch.device("meta"):
        precision = getattr(torch, settings.network.precision)
        return build(settings.network.name, len(settings.class_names), settings.shape, 0, precision)


def filled(network: Network, state: Mapping[str, Tensor], device: str) -> Network:
    """Give a network that `empty_network` built, or one that extends it, its weights, on a device.

    Entries of the state that the network doesn't have are left out: a model may travel with more than what predicts.
    """
    network.load_state_dict({name: state[name] for name in network.state_dict() if name in state}, assign=True)
    return network.to(choose_device(device))
