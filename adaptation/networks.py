"""The networks by name: a feature extractor G and a classifier F, and how a new one is listed."""

from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor, nn

from fmtda.adaptation.layers import BatchNorm1d, BatchNorm2d, ChannelsLast, at_least
from fmtda.adaptation.network import FeatureExtractor, Network
from fmtda.protocol.registry import Registry, UnknownName
from fmtda.protocol.runtime import choose_device
from fmtda.protocol.settings import AdaptationSettings

Builder = Callable[[int, tuple[int, ...]], Network]

NETWORKS: Registry[Builder] = Registry(
    "fmtda.networks",
    {
        "small-cnn": "fmtda.adaptation.networks:small_cnn",
        "mcd-digits": "fmtda.adaptation.networks:mcd_digits",
        "m3sda-digits": "fmtda.adaptation.networks:m3sda_digits",
        "mlp": "fmtda.adaptation.networks:mlp",
        "resnet18": "fmtda.adaptation.resnet:resnet18",
        "resnet50": "fmtda.adaptation.resnet:resnet50",
        "lraspp": "fmtda.adaptation.segmentation_networks:lraspp",
        "deeplabv3": "fmtda.adaptation.segmentation_networks:deeplabv3",
    },
)
"""A new one is a function in a file of its own and a line here, or an entry point in the group ``fmtda.networks``."""


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
        network = builder(classes, input_shape)
    network.feature_extractor.precision = precision
    return network


@cache
def _builder(name: str) -> Builder:
    try:
        return NETWORKS[name]
    except UnknownName as error:
        raise ValueError(f"network.name={name}: {error}") from None


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


def small_cnn(classes: int, input_shape: tuple[int, int, int]) -> Network:
    """Three blocks of convolution, BatchNorm, ReLU and pooling, then 128 features; our choice, the default.

    0.36 million parameters at 32x32, 1,290 of them in the classifier for ten classes.
    """
    channels, height, width = at_least(8, input_shape)
    blocks: list[nn.Module] = [ChannelsLast()]
    for out_channels in (32, 64, 128):
        blocks += [
            nn.Conv2d(channels, out_channels, kernel_size=3, padding=1, bias=False),
            BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        channels = out_channels
    features = 128
    feature_extractor = FeatureExtractor(
        *blocks,
        nn.Flatten(),
        nn.Linear(channels * (height // 8) * (width // 8), features, bias=False),
        BatchNorm1d(features),
        nn.ReLU(),
    )
    return Network(feature_extractor, nn.Linear(features, classes), features)


def mcd_digits(classes: int, input_shape: tuple[int, int, int]) -> Network:
    """The digit network of MCD (Saito et al. 2018, mil-tokyo/MCD_DA): 3,072 features, a two-layer classifier.

    Its dropout is left out (our choice): it draws from torch's global generator, and equal seeds must give
    equal results.
    """
    feature_extractor, features = _mcd_feature_extractor(input_shape)
    hidden = 2048
    classifier = nn.Sequential(nn.Linear(features, hidden), BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, classes))
    return Network(feature_extractor, classifier, features)


def m3sda_digits(classes: int, input_shape: tuple[int, int, int]) -> Network:
    """The digit network of M3SDA (Peng et al. 2019): MCD's with 2,048 features and one linear layer as F.

    Without dropout, as `mcd_digits`.
    """
    mcd_feature_extractor, mcd_features = _mcd_feature_extractor(input_shape)
    features = 2048
    feature_extractor = FeatureExtractor(
        *mcd_feature_extractor, nn.Linear(mcd_features, features), BatchNorm1d(features), nn.ReLU()
    )
    return Network(feature_extractor, nn.Linear(features, classes), features)


def mlp(classes: int, input_shape: tuple[int]) -> Network:
    """For feature vectors: BatchNorm on the inputs, then two hidden layers of 256 and 128; our choice.

    The first BatchNorm brings features of any scale to the same one, and its statistics are the first that a client
    re-estimates. 0.24 million parameters at 800 inputs.
    """
    if len(input_shape) != 1:
        raise ValueError(f"input_shape={input_shape} must be (D,), one number of features; the mlp takes no pictures")
    (size,) = input_shape
    hidden, features = 256, 128
    feature_extractor = FeatureExtractor(
        BatchNorm1d(size),
        nn.Linear(size, hidden, bias=False),
        BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, features, bias=False),
        BatchNorm1d(features),
        nn.ReLU(),
    )
    return Network(feature_extractor, nn.Linear(features, classes), features)


def _mcd_feature_extractor(input_shape: tuple[int, int, int]) -> tuple[FeatureExtractor, int]:
    """Convolutions 5x5 of 64, 64, 128 channels, two max-poolings 3 with stride 2, then 3,072 features."""
    channels, height, width = at_least(4, input_shape)
    features = 3072
    feature_extractor = FeatureExtractor(
        ChannelsLast(),
        nn.Conv2d(channels, 64, kernel_size=5, padding=2),
        BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(64, 64, kernel_size=5, padding=2),
        BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(64, 128, kernel_size=5, padding=2),
        BatchNorm2d(128),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128 * ((height + 3) // 4) * ((width + 3) // 4), features),
        BatchNorm1d(features),
        nn.ReLU(),
    )
    return feature_extractor, features
