"""Cuts background patches out of the two photographs that ship with scikit-learn."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from sklearn.datasets import load_sample_images
from torch.nn import functional

Region = Literal["source", "train", "test"]
REGIONS: tuple[Region, ...] = ("source", "train", "test")

SHRINKINGS = (1.0, 1.5, 2.0, 3.0)


def patches(count: int, size: int, seed: int, region: Region) -> torch.Tensor:
    """Cut random square patches at several scales.

    Each photograph is cut into three vertical stripes and no pixel is in two regions, so that a source
    randomised with patches of "source" has not seen the backgrounds of the targets' parts "train" and "test",
    nor one part the other's.

    Parameters
    ----------
    count : int
        Number of patches.
    size : int
        Side of a patch in pixels.
    seed : int
        Fixes the draw.
    region : {"source", "train", "test"}
        For the randomisation of a labelled source, for targets' training parts, for targets' test parts.

    Returns
    -------
    torch.Tensor
        uint8 (count, 3, size, size), values 0 to 255.

    Raises
    ------
    ValueError
        If `region` is unknown or `size` exceeds the stripes' width.
    """
    if region not in REGIONS:
        raise ValueError(f"region={region!r} must be one of {', '.join(REGIONS)}")
    stripes = [stripe for stripe in _stripes(region) if min(stripe.shape[:2]) >= size]
    if not stripes:
        raise ValueError(f"size={size} must be at most {max(min(stripe.shape[:2]) for stripe in _stripes(region))}")
    rng = np.random.default_rng(seed)
    out_of = rng.integers(len(stripes), size=count)
    result = np.empty((count, 3, size, size), dtype=np.uint8)
    for index, stripe in enumerate(stripes):
        windows = np.lib.stride_tricks.sliding_window_view(stripe, (size, size), axis=(0, 1))
        drawn = np.flatnonzero(out_of == index)
        rows, columns = (rng.integers(places, size=len(drawn)) for places in windows.shape[:2])
        result[drawn] = windows[rows, columns]
    return torch.from_numpy(result)


@lru_cache
def _stripes(region: Region) -> tuple[np.ndarray, ...]:
    """The region's stripe of each photograph, uint8 (height, width, 3), in each scale."""
    stripes = []
    for number, photograph in enumerate(load_sample_images().images):
        # Turned by one from photograph to photograph: each region gets some of the temple or the flower, and
        # some of the smooth sky or the dark leaves.
        place = (REGIONS.index(region) + 2 * number) % len(REGIONS)
        edges = np.linspace(0, photograph.shape[1], len(REGIONS) + 1).astype(int)
        stripe = torch.from_numpy(photograph[:, edges[place] : edges[place + 1]].copy()).permute(2, 0, 1)[None]
        for shrinking in SHRINKINGS:
            small = functional.interpolate(stripe.float(), scale_factor=1 / shrinking, mode="bilinear", antialias=True)
            stripes.append(small[0].round().byte().permute(1, 2, 0).numpy())
    return tuple(stripes)
