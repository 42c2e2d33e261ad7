"""Changes digits, light strokes on a dark ground, at random, so that what is learned of them carries further.

Our choice: what is changed and how strongly, in views too: all of `Randomisation`, the ranges in `geometric_view` and
of pasted neighbours, the coarse grids of the texture, and the constants `VIEW_...`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fmtda.adaptation.augment import Augmentation, prepare
from fmtda.adaptation.geometry import resample
from fmtda.adaptation.random_draws import Draws

# Shapes: N pictures, 3 channels, H rows, W columns; M background patches. Pictures hold 0..255.


VIEW_GEOMETRY = 0.5
"""Strength of the geometric change of a view, see `geometric_view`."""

VIEW_GAIN, VIEW_OFFSET = 0.25, 0.125
"""Largest change of a colour channel of a view: of its contrast, and of its level as a share of the range."""

VIEW_HOLE = 0.25
"""Side of the hole in a view, as a share of the picture's."""


@dataclass(frozen=True)
class Randomisation:
    """Says what `inputs.randomise` changes and how strongly.

    Attributes
    ----------
    colour : bool
        Dark and light become two random colours, further apart than `least_contrast`.
    least_contrast : float
        Smallest distance of the two colours in grey level, 0 to 1 (1 is black against white).
    polarity : bool
        Which of the two colours is the lighter is drawn too; without it the light stays the lighter.
    texture : float
        Largest standard deviation of the smooth coloured noise laid over a picture, 0 (none) to 1.
    geometry : float
        Strength of the affine change, 0 (none) to 1; see `geometric_view`.
    photographs : float
        Chance in [0, 1] that a picture is laid on or subtracted from a background patch.
    neighbours : float
        Chance in [0, 1], for each side, that another picture of the batch is pasted there, cut off by the
        border.
    """

    colour: bool = True
    least_contrast: float = 0.2
    polarity: bool = True
    texture: float = 0.15
    geometry: float = 1.0
    photographs: float = 0.8
    neighbours: float = 0.5


@dataclass(frozen=True)
class DigitAugmentation(Augmentation):
    """Changes geometry, colour, polarity and texture of digits; with backgrounds, photographs and neighbours too."""

    randomisation: Randomisation = Randomisation()

    def prepare(self, inputs: Tensor, standardise: bool) -> Tensor:
        return prepare(inputs, standardise)

    def randomise(
        self, inputs: Tensor, labels: Tensor, generator: torch.Generator, backgrounds: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return randomise(inputs, generator, self.randomisation, backgrounds), labels

    def view(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """Change digits half as much in geometry as the source, give them other colours, and cut a hole."""
        return cut_out(recoloured(geometric_view(inputs, generator, VIEW_GEOMETRY), generator), generator)


def randomise(
    images: Tensor, generator: torch.Generator, settings: Randomisation, backgrounds: Tensor | None = None
) -> Tensor:
    """Change every picture at random: geometry, neighbours, colour and polarity, photographs, texture.

    The source is taken as light on dark (as MNIST is): how light a pixel is, channel by channel, says how
    much of the light colour it gets. Photographs and neighbours are knowledge of the targets (MNIST-M
    subtracts digits from photographs, SVHN's digits have neighbours), so they act only where `backgrounds`
    are given.

    Parameters
    ----------
    images : Tensor, (N, 3, H, W), uint8
    generator : torch.Generator
        Source of every draw. On whichever device it is, the draws are moved to that of the images.
    settings : Randomisation
    backgrounds : Tensor, (M, 3, H, W), uint8, optional
        Photo patches on the images' device.

    Returns
    -------
    Tensor, (N, 3, H, W), uint8
    """
    draw = Draws(generator, len(images), images.device)
    light = geometric_view(images, generator, settings.geometry).float() / 255
    if backgrounds is not None and settings.neighbours > 0:
        light = _with_neighbours(light, draw, settings.neighbours)
    dark_colour, light_colour = _colours(draw, settings)
    scene = dark_colour + (light_colour - dark_colour) * light
    if backgrounds is not None and settings.photographs > 0:
        patches = _varied(backgrounds[draw.indices(len(backgrounds))], draw).float() / 255
        laid_on = patches + (light_colour - patches) * light
        subtracted = (patches - light).abs()
        on_photograph = torch.where(draw.chance(0.5), subtracted, laid_on)
        scene = torch.where(draw.chance(settings.photographs), on_photograph, scene)
    if settings.texture > 0:
        scene = scene + _smooth_noise(draw, scene.shape) * draw.uniform(0, settings.texture)
    return (scene * 255).round().clamp(0, 255).to(torch.uint8)


def geometric_view(images: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Rotate, shear, stretch and shift every picture at random; what enters repeats the edge.

    At full strength: rotation up to 20 degrees and shear up to 0.3 both ways, height and width
    by factors of 0.75 to 1.35 on a logarithmic scale, shifts up to an eighth of the picture.

    Parameters
    ----------
    images : Tensor, (N, 3, H, W), uint8
    generator : torch.Generator
    strength : float
        0 (no change) to 1.

    Returns
    -------
    Tensor, (N, 3, H, W), uint8
    """
    if strength == 0:
        return images
    draw = Draws(generator, len(images), images.device)
    angle = draw.uniform(-1, 1).flatten() * math.radians(20) * strength
    shear = draw.uniform(-1, 1).flatten() * 0.3 * strength
    log_height, log_width = (draw.uniform(math.log(0.75), math.log(1.35)).flatten() * strength for _ in range(2))
    shift_rows, shift_columns = (draw.uniform(-1, 1).flatten() * 0.25 * strength for _ in range(2))
    cosine, sine = angle.cos(), angle.sin()
    # grid_sample asks where each output pixel comes from: an enlargement shrinks the grid.
    shrink_rows, shrink_columns = (-log_height).exp(), (-log_width).exp()
    to_columns = [cosine * shrink_columns, (shear * cosine - sine) * shrink_rows, shift_columns]
    to_rows = [sine * shrink_columns, (shear * sine + cosine) * shrink_rows, shift_rows]
    return resample(images, torch.stack([torch.stack(to_columns, dim=1), torch.stack(to_rows, dim=1)], dim=1))


def recoloured(images: Tensor, generator: torch.Generator) -> Tensor:
    """Give every colour channel of every picture another gain and offset: uint8 (N, 3, H, W)."""
    draw = Draws(generator, len(images), images.device)
    gain = draw.uniform(1 - VIEW_GAIN, 1 + VIEW_GAIN, channels=3)
    offset = draw.uniform(-VIEW_OFFSET, VIEW_OFFSET, channels=3)
    return (images.float() * gain + 255 * offset).round().clamp(0, 255).to(torch.uint8)


def cut_out(images: Tensor, generator: torch.Generator) -> Tensor:
    """Fill a square anywhere in every picture with the picture's mean colour (DeVries and Taylor 2017)."""
    draw = Draws(generator, len(images), images.device)
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device)[:, None]
    columns = torch.arange(width, device=images.device)
    reach = VIEW_HOLE * min(height, width) / 2
    inside_rows = (rows - draw.uniform(0, height)).abs() < reach
    hole = inside_rows & ((columns - draw.uniform(0, width)).abs() < reach)
    filling = images.float().mean(dim=(2, 3), keepdim=True).to(torch.uint8)
    return torch.where(hole, filling, images)


def _with_neighbours(light: Tensor, draw: Draws, chance: float) -> Tensor:
    """Other pictures of the batch pasted left and right, 0.55 to 0.85 widths away; the lighter pixel wins."""
    width = light.shape[-1]
    columns = torch.arange(width, device=light.device)
    for side in (-1, 1):
        others = light[draw.indices(len(light))]
        distance = draw.uniform(0.55, 0.85).flatten() * width * side
        from_column = columns - distance.round().long()[:, None]
        visible = (from_column >= 0) & (from_column < width)
        index = from_column.clamp(0, width - 1)[:, None, None, :].expand_as(others)
        shifted = others.gather(3, index) * visible[:, None, None, :]
        light = torch.where(draw.chance(chance), torch.maximum(light, shifted), light)
    return light


def _varied(patches: Tensor, draw: Draws) -> Tensor:
    """The patches mirrored by chance, their colour channels in random order: more out of few photographs."""
    patches = torch.where(draw.chance(0.5), patches, patches.flip(3))
    order = draw.uniform(0, 1, channels=3).argsort(dim=1)
    return patches.gather(1, order.expand_as(patches))


def _colours(draw: Draws, settings: Randomisation) -> tuple[Tensor, Tensor]:
    """The colours of dark and light, each (N, 3, 1, 1) in [0, 1]; black and white without colour."""
    dark, light = draw.uniform(0, 1, channels=3), draw.uniform(0, 1, channels=3)
    if not settings.colour:
        dark, light = torch.zeros_like(dark), torch.ones_like(light)
    gap = (light - dark).mean(dim=1, keepdim=True)
    # Colours that are too close are pushed apart in grey level, then back into [0, 1].
    missing = (settings.least_contrast - gap.abs()).clamp(min=0) * torch.where(gap < 0, -1.0, 1.0)
    dark, light = (dark - missing / 2).clamp(0, 1), (light + missing / 2).clamp(0, 1)
    inverted = gap < 0
    dark, light = torch.where(inverted, light, dark), torch.where(inverted, dark, light)
    if settings.polarity:
        swap = draw.chance(0.5)
        dark, light = torch.where(swap, light, dark), torch.where(swap, dark, light)
    return dark, light


def _smooth_noise(draw: Draws, shape: torch.Size) -> Tensor:
    """Coloured noise of standard deviation about one: the sum of two coarse random grids, enlarged."""
    noise = torch.zeros(shape, device=draw.device)
    for cells in (4, 12):
        grid = draw.normal(shape[1], cells, cells)
        noise += functional.interpolate(grid, size=shape[-2:], mode="bilinear", align_corners=False)
    return noise
