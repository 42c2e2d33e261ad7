"""Lists the networks by name and the augmentations by kind of inputs; a new one is a file here and a line below."""

from collections.abc import Callable

import torch

from fmtda.adaptation.augment import Augmentation
from fmtda.adaptation.augment_digits import DigitAugmentation
from fmtda.adaptation.augment_features import FeatureAugmentation
from fmtda.adaptation.augment_photographs import PhotographAugmentation
from fmtda.adaptation.augment_scenes import SceneAugmentation
from fmtda.adaptation.network import Network
from fmtda.adaptation.resnet import resnet18, resnet50
from fmtda.adaptation.segmentation_networks import deeplabv3, lraspp
from fmtda.adaptation.small_networks import m3sda_digits, mcd_digits, mlp, small_cnn

NETWORKS: dict[str, Callable[[int, tuple[int, ...]], Network]] = {
    "small-cnn": small_cnn,
    "mcd-digits": mcd_digits,
    "m3sda-digits": m3sda_digits,
    "mlp": mlp,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "lraspp": lraspp,
    "deeplabv3": deeplabv3,
}

AUGMENTATIONS: dict[str, Augmentation] = {
    "digits": DigitAugmentation(),
    "photographs": PhotographAugmentation(),
    "scenes": SceneAugmentation(),
    "features": FeatureAugmentation(),
}


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
    if name not in NETWORKS:
        raise ValueError(f"network={name!r} is unknown; allowed are {', '.join(NETWORKS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = NETWORKS[name](classes, input_shape)
    network.feature_extractor.precision = precision
    return network
