"""Says what every kind of inputs has: how they become network inputs, and how they are changed at random.

Our choice: one mean and deviation for the three channels of a standardised picture, and the least deviation of 4 grey
levels.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Augmentation(ABC):
    """Prepares and changes one kind of inputs: digits, photographs, feature vectors or street scenes.

    Every draw comes from the generator that is passed in, never from torch's global one: equal generators give equal
    results.
    """

    @abstractmethod
    def prepare(self, inputs: Tensor, standardise: bool) -> Tensor:
        """Make network inputs, float32, of examples as `domains` hands them out; nothing is drawn.

        Parameters
        ----------
        inputs : Tensor, (N, ...)
            uint8 (N, 3, H, W) for pictures, float32 (N, D) for feature vectors.
        standardise : bool
            The extra of that name: every example brought to the same mean and spread.
        """

    @abstractmethod
    def randomise(
        self, inputs: Tensor, labels: Tensor, generator: torch.Generator, backgrounds: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Change every labelled source example at random, so that what is learned carries further than the source does.

        Parameters
        ----------
        inputs : Tensor, (N, ...)
            As `prepare` takes them.
        labels : Tensor
            int64 (N,), or (N, H, W) label maps, which follow the geometry of their pictures; -1 is void.
        generator : torch.Generator
            On whichever device; draws are moved to that of the inputs.
        backgrounds : Tensor, (M, 3, H, W), uint8, optional
            Photo patches for the extra `inputs.scenery`; None where it is off, or where the kind knows nothing of it.

        Returns
        -------
        inputs, labels : Tensor
            Shapes and dtypes as given.
        """

    @abstractmethod
    def view(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """Change unlabelled inputs in a way that keeps their labels, for training on pseudo-labels.

        Where labels are maps the geometry stays, so that the labels of the unchanged inputs still fit.
        """


def prepare(images: Tensor, standardise: bool) -> Tensor:
    """Make network inputs of pictures.

    Parameters
    ----------
    images : Tensor, (N, 3, H, W), uint8
    standardise : bool
        False scales 0..255 to [-1, 1]. True gives every picture, over all of its pixels and channels, mean
        zero and variance one (VADA's instance normalisation, Shu et al. 2018, with one mean for the three
        channels); a standard deviation under 4 grey levels counts as 4, so that a flat picture doesn't turn
        into noise.

    Returns
    -------
    Tensor, (N, 3, H, W), float32
    """
    images = images.float()
    if not standardise:
        return images / 127.5 - 1
    deviation, mean = torch.std_mean(images, dim=(1, 2, 3), correction=0, keepdim=True)
    return (images - mean) / deviation.clamp(min=4.0)


def mixup(first: Tensor, second: Tensor) -> Tensor:
    """Mix two draws of equal shape half and half, x' = (x_a + x_b) / 2, as the notes fix it."""
    return (first + second) / 2
