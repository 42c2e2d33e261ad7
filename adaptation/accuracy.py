"""Measures how much of labelled examples a network gets right, in one place for all who watch the source hold-out."""

import torch
from torch import Tensor

from fmtda.adaptation.batches import forward_slices
from fmtda.adaptation.network import Network


@torch.no_grad()
def accuracy(network: Network, inputs: Tensor, labels: Tensor) -> float:
    """Compute the share of the known labels that a network in evaluation mode predicts, in [0, 1].

    Parameters
    ----------
    network : Network
        Its mode is not changed.
    inputs : Tensor, (B, ...)
        Prepared as the network expects them.
    labels : Tensor of int64, (B,), or (B, H, W) for segmentation
        Negative where unknown: these don't count.
    """
    predicted = torch.cat([network(inputs[part]).argmax(dim=1) for part in forward_slices(inputs)])
    return (predicted == labels)[labels >= 0].float().mean().item()
