"""Says what every network is: a feature extractor G and a classifier F."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class FeatureExtractor(nn.Sequential):
    """This is G: modules one after the other, from inputs (B, ...) to float32 features.

    Attributes
    ----------
    precision : torch.dtype
        Of what is computed inside, float32 at first. With bfloat16, torch.autocast does convolutions and matrix
        products in it; weights stay float32. Exported programs compute in float32.
    """

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__(*modules)
        self.precision = torch.float32

    def forward(self, inputs: Tensor) -> Tensor:
        if self.precision == torch.float32 or torch.compiler.is_exporting():
            return super().forward(inputs)
        with torch.autocast(inputs.device.type, self.precision):
            return super().forward(inputs).float()


class Network(nn.Module):
    """Joins a feature extractor G and a classifier F.

    A *dense* network, for segmentation, has features at every place of a coarse map, and classifies every pixel.

    Parameters
    ----------
    feature_extractor : FeatureExtractor
        G, from inputs (B, ...) to features z (B, D); a dense one from pictures (B, 3, H, W) to (B, h, w, D).
    classifier : nn.Module
        F, on the last axis: from features (..., D) to logits (..., C).
    feature_size : int
        D.
    """

    def __init__(self, feature_extractor: FeatureExtractor, classifier: nn.Module, feature_size: int):
        super().__init__()
        self.feature_extractor = feature_extractor
        self.classifier = classifier
        self.feature_size = feature_size

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the logits F(G(inputs)): (B, C), or (B, C, H, W) bilinearly brought to the size of the pictures."""
        return self.logits(self.feature_extractor(inputs), inputs.shape[-2:])

    def logits(self, features: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
        """Do as `forward` from features on; `size` (H, W) is the pictures', and unused where features are no map."""
        return at_full_size(self.classifier(features), size)

    def features(self, inputs: Tensor, places: int = 0, generator: torch.Generator | None = None) -> Tensor:
        """Compute features as rows (R, D): one an example, or one a place of the maps.

        Parameters
        ----------
        inputs : Tensor, (B, ...)
        places : int
            Of every map, take only as many random places; 0 takes all. Without meaning where features are no map.
        generator : torch.Generator
            Source of the places, needed for them alone.
        """
        features = self.feature_extractor(inputs)
        if features.ndim == 2:
            return features
        rows = features.flatten(1, -2)
        if 0 < places < rows.shape[1]:
            chances = torch.rand(rows.shape[:2], generator=generator)
            chosen = chances.topk(places, dim=1).indices.to(rows.device)
            rows = rows.gather(1, chosen[..., None].expand(-1, -1, rows.shape[2]))
        return rows.flatten(0, 1)


def at_full_size(logits: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Bring logits of a map (B, h, w, C) to those of pixels (B, C, H, W), bilinearly; leave rows as they are."""
    if logits.ndim == 2:
        return logits
    return functional.interpolate(logits.movedim(-1, 1), size=tuple(size), mode="bilinear", align_corners=False)
