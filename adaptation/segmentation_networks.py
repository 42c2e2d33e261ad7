"""Builds dense networks for segmentation: torchvision's LR-ASPP and DeepLabV3 with weights from scratch.

Of both, the last 1x1 convolution is F, a linear layer on every place of the feature map, and all before it is G.
Dropout is left out: it draws from torch's global generator, and equal seeds must give equal results.

Our choice: which layer F begins at, and that there is no dropout.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fmtda.adaptation.layers import BatchNorm2d, ChannelsLast, three_channels
from fmtda.adaptation.network import FeatureExtractor, Network
from fmtda.protocol.runtime import repair_torchvision


def lraspp(classes: int, input_shape: tuple[int, ...]) -> Network:
    """Build LR-ASPP on MobileNetV3-Large (Howard et al. 2019): 168 features at an eighth of the height and width.

    3.2 million parameters. The features are both inputs of the published head's two last convolutions, whose outputs
    it adds: 40 channels of the early layers, 128 of the late ones.
    """
    three_channels(16, input_shape)
    repair_torchvision()
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    published = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes)
    features = published.classifier.low_classifier.in_channels + published.classifier.high_classifier.in_channels
    lite = _LiteFeatures(published.backbone, published.classifier.cbr, published.classifier.scale)
    return _dense(nn.Sequential(ChannelsLast(), lite), features, classes)


def deeplabv3(classes: int, input_shape: tuple[int, ...]) -> Network:
    """Build DeepLabV3 on ResNet-50 (Chen et al. 2017): 256 features at an eighth of the height and width.

    39.6 million parameters, without the auxiliary head. Training needs two pictures a batch: the BatchNorm of its
    pooled branch sees one value a picture.
    """
    three_channels(16, input_shape)
    repair_torchvision()
    from torchvision.models.segmentation import deeplabv3_resnet50

    published = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=classes, aux_loss=False)
    features = published.classifier[-1].in_channels
    return _dense(_AtrousFeatures(published.backbone, list(published.classifier)[:-1]), features, classes)


def _dense(feature_maps: nn.Module, features: int, classes: int) -> Network:
    """G out of a module that gives feature maps (B, D, h, w), with a linear F."""
    _replace_layers(feature_maps)
    return Network(FeatureExtractor(feature_maps, _FeaturesLast()), nn.Linear(features, classes), features)


def _replace_layers(module: nn.Module) -> None:
    """BatchNorm becomes the project's, of the usual momentum 0.1 and the layer's own epsilon; dropout goes."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, BatchNorm2d(child.num_features, eps=child.eps))
        elif isinstance(child, nn.Dropout):
            setattr(module, name, nn.Identity())
        else:
            _replace_layers(child)


class _LiteFeatures(nn.Module):
    """LR-ASPP up to its two last convolutions: early and late channels side by side, (B, 168, h, w)."""

    def __init__(self, backbone: nn.Module, late: nn.Module, scale: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.late = late
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        maps = self.backbone(images)
        early, late = maps["low"], self.late(maps["high"]) * self.scale(maps["high"])
        late = functional.interpolate(late, size=early.shape[-2:], mode="bilinear", align_corners=False)
        return torch.cat([early, late], dim=1)


class _AtrousFeatures(nn.Module):
    """DeepLabV3 up to the ReLU before its last convolution, (B, 256, h, w)."""

    def __init__(self, backbone: nn.Module, head: list[nn.Module]):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Sequential(*head)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images)["out"])


class _FeaturesLast(nn.Module):
    """From maps (B, D, h, w) to (B, h, w, D), where a linear layer acts on every place."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.movedim(1, -1)
