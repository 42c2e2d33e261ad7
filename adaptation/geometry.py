"""Puts pictures and their label maps under affine maps, each example under its own."""

import torch
from torch import Tensor
from torch.nn import functional

# Coordinates run from -1 to 1 over the picture, columns before rows, as torch's `affine_grid` has them.


def crop_matrices(centres: Tensor, extents: Tensor, mirrored: Tensor) -> Tensor:
    """Compute the affine maps that cut a box out of each picture and enlarge it to the picture's size.

    Parameters
    ----------
    centres : Tensor, (N, 2)
        Column and row of the box's centre, -1 to 1.
    extents : Tensor, (N, 2)
        Width and height of the box in widths and heights of the picture; above 1 it reaches beyond the picture.
    mirrored : Tensor, (N,), bool
        Which pictures are flipped left to right.

    Returns
    -------
    Tensor, (N, 2, 3)
        From output to input coordinates.
    """
    sides = torch.where(mirrored, -1.0, 1.0)
    directions = torch.stack([sides, torch.ones_like(sides)], dim=1)
    return torch.cat([torch.diag_embed(extents * directions), centres[:, :, None]], dim=2)


def resample(images: Tensor, matrices: Tensor) -> Tensor:
    """Put pictures under affine maps, bilinearly; what enters repeats the edge.

    Parameters
    ----------
    images : Tensor, (N, 3, H, W), uint8
    matrices : Tensor, (N, 2, 3)
        From output to input coordinates.

    Returns
    -------
    Tensor, (N, 3, H, W), uint8
    """
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    changed = functional.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return changed.round_().clamp_(0, 255).to(torch.uint8)


def resample_labels(labels: Tensor, matrices: Tensor) -> Tensor:
    """Put label maps under the maps of their pictures, by the nearest pixel; what enters is -1 (void).

    Parameters
    ----------
    labels : Tensor, (N, H, W), integer
    matrices : Tensor, (N, 2, 3)
        As for `resample`.

    Returns
    -------
    Tensor, (N, H, W), dtype as given
    """
    grid = functional.affine_grid(matrices, [len(labels), 1, *labels.shape[1:]], align_corners=False)
    # From one on, so that the zeros that enter become -1.
    above = labels[:, None].float() + 1
    changed = functional.grid_sample(above, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return (changed[:, 0] - 1).to(labels.dtype)
