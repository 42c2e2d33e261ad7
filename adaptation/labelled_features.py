"""Takes features with their classes from one network, for a map of them."""

import torch
from torch import Tensor
from torch.nn import functional

from fmtda.adaptation.batches import forward_slices
from fmtda.adaptation.inputs import Inputs
from fmtda.adaptation.network import Network


@torch.no_grad()
def labelled_rows(
    network: Network, inputs: Inputs, labels: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Compute features and classes of examples, or of random places of pictures.

    Parameters
    ----------
    network : Network
        In evaluation mode.
    inputs : Inputs, (N, ...)
    labels : Tensor, (N,) or (N, H, W)
        -1 where unknown; (N,) of -1 says unlabelled of pictures with maps too.
    count : int
        Rows at most: without maps the first examples, with maps random places of all pictures.
    generator : torch.Generator
        Source of the places; equal generators give the same places of equal pictures.

    Returns
    -------
    features : Tensor, (R, D), float32, on the CPU
    classes : Tensor, (R,), int64
    """
    parts = [network.feature_extractor(inputs[part]).cpu() for part in forward_slices(inputs)]
    features, labels = torch.cat(parts), labels.cpu().long()
    if features.ndim == 2:
        return features[:count], labels[:count]
    if labels.ndim == 1:
        labels = labels[:, None, None].expand(features.shape[:3])
    else:
        labels = functional.interpolate(labels[:, None].float(), features.shape[1:3], mode="nearest")[:, 0].long()
    chosen = torch.randperm(labels.numel(), generator=generator)[:count]
    return features.flatten(0, 2)[chosen], labels.flatten()[chosen]


@torch.no_grad()
def feature_rows(network: Network, inputs: Inputs, places: int, generator: torch.Generator) -> Tensor:
    """Compute features z (R, D) of all inputs: one row an example, or so many random places of every picture's map."""
    if len(inputs) == 0:
        return torch.zeros(0, network.feature_size, device=inputs.device)
    return torch.cat([network.features(inputs[part], places, generator) for part in forward_slices(inputs)])
