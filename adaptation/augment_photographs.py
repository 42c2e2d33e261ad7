"""Changes photographs and pictures of objects at random, so that what is learned of them carries further.

Nothing here imitates a particular kind of pictures.

Our choice: all strengths, made without any target's labels.
"""

import math

import torch
from torch import Tensor

from fmtda.adaptation.augment import Augmentation, prepare
from fmtda.adaptation.geometry import crop_matrices, resample
from fmtda.adaptation.photometry import Photometry, change_photometry
from fmtda.adaptation.random_draws import Draws

RANDOMISED = Photometry(
    brightness=0.4, contrast=0.5, saturation=0.8, hue=0.2, greyscale=0.2, blur=0.3, sigma=1.5, texture=0.5
)
RANDOMISED_AREA = 0.5
VIEWED = Photometry(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.03)
VIEWED_AREA = 0.7
LARGEST_RATIO = 4 / 3
"""The largest ratio of a crop's width to its height, or the other way round, in units of the picture's."""


class PhotographAugmentation(Augmentation):
    """Changes photographs by random crops, mirroring, colour, blur and random convolutions."""

    def prepare(self, inputs: Tensor, standardise: bool) -> Tensor:
        return prepare(inputs, standardise)

    def randomise(
        self, inputs: Tensor, labels: Tensor, generator: torch.Generator, backgrounds: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return change_photometry(random_crop(inputs, generator, RANDOMISED_AREA), generator, RANDOMISED), labels

    def view(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        return change_photometry(random_crop(inputs, generator, VIEWED_AREA), generator, VIEWED)


def random_crop(images: Tensor, generator: torch.Generator, smallest_area: float) -> Tensor:
    """Enlarge a random crop of every picture to the picture's size, and mirror half of them.

    Parameters
    ----------
    images : Tensor, (N, 3, H, W), uint8
    generator : torch.Generator
        Source of every draw.
    smallest_area : float
        Of the crop, as a share of the picture's; the largest is 1.

    Returns
    -------
    Tensor, (N, 3, H, W), uint8
    """
    draw = Draws(generator, len(images), images.device)
    area = draw.uniform(smallest_area, 1).flatten()
    ratio = (draw.uniform(-1, 1).flatten() * math.log(LARGEST_RATIO)).exp()
    # A crop wider or higher than the picture is cut back to it.
    extents = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1).clamp(max=1)
    centres = draw.uniform(-1, 1, channels=2).flatten(1) * (1 - extents)
    return resample(images, crop_matrices(centres, extents, draw.chance(0.5).flatten()))
