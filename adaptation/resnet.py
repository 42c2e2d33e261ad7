"""Builds residual networks for photographs: torchvision's ResNets with weights from scratch."""

from torch import nn

from fmtda.adaptation.layers import BatchNorm2d, ChannelsLast, three_channels
from fmtda.adaptation.network import FeatureExtractor, Network
from fmtda.protocol.runtime import repair_torchvision


def resnet18(classes: int, input_shape: tuple[int, ...]) -> Network:
    """Build a ResNet-18 (He et al. 2016): 512 features, the mean over the last feature map; F is one linear layer.

    11.2 million parameters. Small pictures too enter by the 7x7 convolution of stride 2 and the pooling: a step costs
    a sixteenth of what it would without both.
    """
    return _resnet("resnet18", classes, input_shape)


def resnet50(classes: int, input_shape: tuple[int, ...]) -> Network:
    """Build a ResNet-50 (He et al. 2016): 2,048 features, otherwise as `resnet18`; 23.5 million parameters."""
    return _resnet("resnet50", classes, input_shape)


def _resnet(name: str, classes: int, input_shape: tuple[int, ...]) -> Network:
    """A ResNet of torchvision, without its last layer, as G."""
    three_channels(32, input_shape)
    repair_torchvision()
    from torchvision import models

    resnet = models.get_model(name, weights=None, norm_layer=BatchNorm2d)
    features = resnet.fc.in_features
    resnet.fc = nn.Identity()
    return Network(FeatureExtractor(ChannelsLast(), resnet), nn.Linear(features, classes), features)
