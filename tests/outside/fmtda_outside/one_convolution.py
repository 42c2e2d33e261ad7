"""A network: one convolution."""

from torch import nn

from fmtda.adaptation.network import FeatureExtractor, Network


def one_convolution(classes: int, input_shape: tuple[int, ...]) -> Network:
    """Eight channels, pooled to 4x4."""
    channels = 8
    extractor = FeatureExtractor(
        nn.Conv2d(input_shape[0], channels, kernel_size=5, padding=2),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
    )
    return Network(extractor, nn.Linear(16 * channels, classes), 16 * channels)
