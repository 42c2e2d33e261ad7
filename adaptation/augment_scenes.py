"""Changes scenes with a label map, as street scenes, at random, so that what is learned of them carries further.

Our choice: all strengths, made without any target's labels.
"""

import math

import torch
from torch import Tensor

from fmtda.adaptation.augment import Augmentation, prepare
from fmtda.adaptation.geometry import crop_matrices, resample, resample_labels
from fmtda.adaptation.photometry import Photometry, change_photometry
from fmtda.adaptation.random_draws import Draws

RANDOMISED = Photometry(
    brightness=0.4,
    contrast=0.5,
    saturation=0.6,
    hue=0.1,
    greyscale=0.1,
    gamma=0.6,
    gain=0.15,
    noise=0.04,
    blur=0.3,
    sigma=1.5,
    texture=0.4,
)
VIEWED = Photometry(brightness=0.2, contrast=0.2, saturation=0.3, hue=0.03, gamma=0.2, noise=0.03, blur=0.3, sigma=1.0)
SMALLEST_ZOOM, LARGEST_ZOOM = 0.8, 1.6
"""Enlargement of `random_zoom`; below 1 the picture is made smaller, and its edge repeated around it as void."""


class SceneAugmentation(Augmentation):
    """Changes light, colour, blur, noise and texture of scenes; zooms and mirrors those of the labelled source too."""

    def prepare(self, inputs: Tensor, standardise: bool) -> Tensor:
        return prepare(inputs, standardise)

    def randomise(
        self, inputs: Tensor, labels: Tensor, generator: torch.Generator, backgrounds: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        images, labels = random_zoom(inputs, labels, generator)
        return change_photometry(images, generator, RANDOMISED), labels

    def view(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        return change_photometry(inputs, generator, VIEWED)


def random_zoom(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Zoom, shift and by chance mirror every picture and its label map alike.

    Parameters
    ----------
    images : Tensor, (N, 3, H, W), uint8
    labels : Tensor, (N, H, W), integer
    generator : torch.Generator
        Source of every draw.

    Returns
    -------
    images, labels : Tensor
        Shapes and dtypes as given; labels are -1 (void) beyond the picture.
    """
    draw = Draws(generator, len(images), images.device)
    zoom = draw.uniform(math.log(SMALLEST_ZOOM), math.log(LARGEST_ZOOM)).flatten().exp()
    extents = (1 / zoom)[:, None].expand(-1, 2)
    # The crop stays inside the picture, or the picture inside the crop.
    centres = draw.uniform(-1, 1, channels=2).flatten(1) * (1 - extents).abs()
    matrices = crop_matrices(centres, extents, draw.chance(0.5).flatten())
    return resample(images, matrices), resample_labels(labels, matrices)
