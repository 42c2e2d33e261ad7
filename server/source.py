"""The labelled source on the server: its hold-out, and batches changed the way the network is trained on them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adaptation.augment import Randomisation, prepare, randomise
from domains.examples import DataError
from domains.photographs import patches
from domains.registry import family
from protocol.seeds import seed_for
from protocol.settings import Settings

LEAST_EXAMPLES = 20
"""Labelled examples below which no network is trained (our choice)."""

BACKGROUNDS = 1000
"""Photo patches that the scenery extra draws from (our choice)."""

WATCHED = 600
"""Examples of the hold-out that a look at it takes (our choice): a percent of them is six pictures."""


@dataclass(frozen=True)
class Source:
    """D_S = {(x_s, y_s)}, split once into what is trained on and what only watches.

    Attributes
    ----------
    images, labels
        uint8 (N, 3, H, W) and int64 (N,): the part that G and F_g are trained on.
    held_out_images, held_out_labels
        The part that the guard and the metrics look at, never trained on.
    standardise
        Whether inputs are standardised image by image.
    randomisation, backgrounds
        How a batch is changed at random; None where the extra is off.
    """

    images: Tensor
    labels: Tensor
    held_out_images: Tensor
    held_out_labels: Tensor
    standardise: bool
    randomisation: Randomisation | None
    backgrounds: Tensor | None

    @classmethod
    def load(cls, settings: Settings, device: torch.device) -> "Source":
        """Load the source domain's training part and split off the hold-out, by the seed.

        Raises
        ------
        DataError
            If it can't be read, or is too small to train on.
        """
        data_dir = Path(settings.data_dir) if settings.data_dir else None
        domain = family(settings.data).load(settings.source, "train", data_dir, settings.seed)
        examples = domain.limited(settings.source_limit, seed_for(settings.seed, "source limit"))
        if len(examples) < LEAST_EXAMPLES:
            raise DataError(
                f"source {settings.source}: {len(examples)} labelled examples (source-limit={settings.source_limit}); "
                f"at least {LEAST_EXAMPLES} are needed"
            )
        order = np.random.default_rng(seed_for(settings.seed, "hold-out")).permutation(len(examples))
        cut = max(1, round(settings.hold_out * len(examples)))
        held_out, trained = examples.select(np.sort(order[:cut])), examples.select(np.sort(order[cut:]))
        size = examples.inputs.shape[-1]
        backgrounds = None
        if settings.randomise and settings.scenery:
            backgrounds = patches(BACKGROUNDS, size, seed_for(settings.seed, "backgrounds") % 2**31, "source").to(
                device
            )
        return cls(
            images=trained.inputs.to(device),
            labels=trained.labels.to(device),
            held_out_images=held_out.inputs.to(device),
            held_out_labels=held_out.labels.to(device),
            standardise=settings.standardise,
            randomisation=Randomisation() if settings.randomise else None,
            backgrounds=backgrounds,
        )

    def plain(self) -> "Source":
        """The same examples without any extra."""
        return Source(self.images, self.labels, self.held_out_images, self.held_out_labels, False, None, None)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random mini-batch (x_s, y_s): inputs float32 (count, 3, H, W), randomised and prepared, and labels."""
        chosen = torch.randint(len(self.images), (count,), generator=generator).to(self.images.device)
        return self.prepared(self.images[chosen], generator), self.labels[chosen]

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Inputs of `count` different examples, or of all where there are fewer: float32 (<= count, 3, H, W)."""
        chosen = torch.randperm(len(self.images), generator=generator)[:count].to(self.images.device)
        return self.prepared(self.images[chosen], generator)

    def held_out(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`WATCHED` examples of the hold-out, randomised and prepared as batches are.

        A larger hold-out is drawn from; a smaller one comes several times, each time randomised anew.
        """
        order = torch.randperm(len(self.held_out_images), generator=generator).to(self.held_out_images.device)
        chosen = order.repeat(-(-WATCHED // len(order)))[:WATCHED]
        return self.prepared(self.held_out_images[chosen], generator), self.held_out_labels[chosen]

    def prepared(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Inputs out of source pictures."""
        if self.randomisation is not None:
            images = randomise(images, generator, self.randomisation, self.backgrounds)
        return prepare(images, self.standardise)
