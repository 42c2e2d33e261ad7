"""Builds small networks: convolutions for digits, and a perceptron for feature vectors.

Our choice: `small_cnn` and `mlp` as a whole, and that there is no dropout in the published ones.
"""

from torch import nn

from fmtda.adaptation.layers import BatchNorm1d, BatchNorm2d, ChannelsLast, at_least
from fmtda.adaptation.network import FeatureExtractor, Network


def small_cnn(classes: int, input_shape: tuple[int, ...]) -> Network:
    """Build three blocks of convolution, BatchNorm, ReLU and pooling, then 128 features; the default.

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


def mcd_digits(classes: int, input_shape: tuple[int, ...]) -> Network:
    """Build MCD's digit network (Saito et al. 2018, mil-tokyo/MCD_DA): 3,072 features, a two-layer classifier.

    Its dropout is left out: it draws from torch's global generator, and equal seeds must give equal results.
    """
    feature_extractor, features = _mcd_feature_extractor(input_shape)
    hidden = 2048
    classifier = nn.Sequential(nn.Linear(features, hidden), BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, classes))
    return Network(feature_extractor, classifier, features)


def m3sda_digits(classes: int, input_shape: tuple[int, ...]) -> Network:
    """Build M3SDA's digit network (Peng et al. 2019): MCD's with 2,048 features and one linear layer as F.

    Without dropout, as `mcd_digits`.
    """
    mcd_feature_extractor, mcd_features = _mcd_feature_extractor(input_shape)
    features = 2048
    feature_extractor = FeatureExtractor(
        *mcd_feature_extractor, nn.Linear(mcd_features, features), BatchNorm1d(features), nn.ReLU()
    )
    return Network(feature_extractor, nn.Linear(features, classes), features)


def mlp(classes: int, input_shape: tuple[int, ...]) -> Network:
    """Build a network for feature vectors: BatchNorm on the inputs, then two hidden layers of 256 and 128.

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


def _mcd_feature_extractor(input_shape: tuple[int, ...]) -> tuple[FeatureExtractor, int]:
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
