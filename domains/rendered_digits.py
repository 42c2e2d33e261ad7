"""Renders digits out of typefaces in colour: single ones, and ones in a house number on a photograph."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from fmtda.domains import glyphs
from fmtda.domains.background_patches import patches
from fmtda.domains.distortions import blurred, halved, warped
from fmtda.domains.examples import Examples
from fmtda.domains.family import Part

SIDE = 32


def fonts(count: int, part: Part, rng: np.random.Generator) -> Examples:
    """Render single digits in random colour, slant, size and place, on plain, shaded or photographed ground.

    After the recipe of SynthDigits (Ganin and Lempitsky 2015, "Unsupervised Domain Adaptation by
    Backpropagation").

    Parameters
    ----------
    count : int
        Number of pictures; the classes are as equal as that allows.
    part : {"train", "test"}
        The two parts share no typeface and no background.
    rng : numpy.random.Generator
        Draws everything.

    Returns
    -------
    Examples
        uint8 (count, 3, 32, 32).
    """
    labels = balanced(count, rng)
    drawn = glyphs.draw(labels, part, rng)
    drawn = warped(drawn, rng, rotation=15, slant=(-0.35, 0.35), scale=(0.8, 1.3), shift=0.05)
    ink = blurred(halved(drawn, SIDE), rng, (0.0, 0.8))

    photographed = torch.from_numpy(rng.random(count) < 0.5)[:, None, None, None]
    patch = patches(count, SIDE, int(rng.integers(2**32)), part).float()
    mean = patch.mean(dim=(2, 3), keepdim=True)
    ground = torch.where(photographed, mean + 0.6 * (patch - mean), _shaded(rng, count))
    colour = _contrasting(ground.mean(dim=(2, 3), keepdim=True), rng)
    return Examples(_bytes(torch.lerp(ground, colour, ink)), torch.from_numpy(labels))


def street(count: int, part: Part, rng: np.random.Generator) -> Examples:
    """Render digits with neighbours cut off left and right, blurred and in low contrast, on a photograph.

    That is what makes SVHN hard (Netzer et al. 2011, "Reading Digits in Natural Images"). Parameters and
    result as for `fonts`.
    """
    labels = balanced(count, rng)
    drawn = glyphs.draw(labels, part, rng, neighbours=True)
    drawn = warped(drawn, rng, rotation=7, slant=(-0.15, 0.2), scale=(0.9, 1.25), shift=0.03)
    ink = halved(drawn, SIDE)

    patch = patches(count, SIDE, int(rng.integers(2**32)), part).float()
    mean = patch.mean(dim=(2, 3), keepdim=True)
    ground = mean + _each(rng, 0.15, 0.55, count) * (blurred(patch, rng, (0.5, 2.0)) - mean)
    # Neither black nor white: otherwise nothing could be drawn on it in the direction chosen below, or seen
    # in the sun.
    ground = (ground + _tint(rng, 30, 15, count)).clamp(20, 215)
    # Away from the nearer end of the grey scale, where there is no room for a darker or a lighter digit.
    lighter = torch.where(_each(rng, 60, 180, count) > ground.mean(dim=(1, 2, 3), keepdim=True), 1.0, -1.0)
    contrast = lighter * _each(rng, 50, 130, count) + _tint(rng, 0, 12, count)
    picture = ground + contrast * ink

    light = torch.from_numpy(rng.uniform(0.8, 1.15, (count, 1, 2, 2))).float()
    picture = picture * functional.interpolate(light, (SIDE, SIDE), mode="bilinear", align_corners=True)
    picture = blurred(picture, rng, (0.5, 1.4)) + torch.from_numpy(rng.normal(0, 3, picture.shape)).float()
    return Examples(_bytes(picture), torch.from_numpy(labels))


def balanced(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `count` digits in random order, int64, none more than once oftener than another."""
    return rng.permutation(np.resize(np.arange(10), count))


def _shaded(rng: np.random.Generator, count: int) -> torch.Tensor:
    """Grounds of one colour that varies a little from corner to corner, float32 (count, 3, SIDE, SIDE)."""
    corners = rng.uniform(0, 255, (count, 3, 1, 1)) + rng.normal(0, 25, (count, 3, 2, 2))
    return functional.interpolate(torch.from_numpy(corners).float(), (SIDE, SIDE), mode="bilinear", align_corners=True)


def _contrasting(ground: torch.Tensor, rng: np.random.Generator, candidates: int = 5) -> torch.Tensor:
    """Of several random colours the one furthest from the ground in brightness; both (count, 3, 1, 1)."""
    colours = torch.from_numpy(rng.uniform(0, 255, (candidates, *ground.shape))).float()
    distance = (colours.mean(dim=2) - ground.mean(dim=1)).abs().flatten(1)
    return colours[distance.argmax(dim=0), torch.arange(len(ground))]


def _each(rng: np.random.Generator, low: float, high: float, count: int) -> torch.Tensor:
    """A number of its own for each picture, float32 (count, 1, 1, 1)."""
    return torch.from_numpy(rng.uniform(low, high, (count, 1, 1, 1))).float()


def _tint(rng: np.random.Generator, brightness: float, colour: float, count: int) -> torch.Tensor:
    """Normal deviations, shared by the channels and of each channel, float32 (count, 3, 1, 1)."""
    shift = rng.normal(0, brightness, (count, 1, 1, 1)) + rng.normal(0, colour, (count, 3, 1, 1))
    return torch.from_numpy(shift).float()


def _bytes(pictures: torch.Tensor) -> torch.Tensor:
    return pictures.clamp(0, 255).round().byte()
