"""Serves the labelled source: its hold-out, and batches changed the way the network is trained on them.

Our choice: below how many examples nothing is trained, how many photo patches there are, and how large a look is.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fmtda.adaptation.augment import Augmentation
from fmtda.adaptation.registry import AUGMENTATIONS
from fmtda.domains.background_patches import patches
from fmtda.domains.examples import DataError, Examples
from fmtda.domains.registry import family, spec_of
from fmtda.protocol.seeds import seed_for
from fmtda.protocol.settings import AdaptationSettings

LEAST_EXAMPLES = 20
"""Labelled examples below which no network is trained."""

BACKGROUNDS = 1000
"""Photo patches that the scenery extra draws from."""

WATCHED = {"digits": 600, "features": 600, "photographs": 200, "scenes": 16}
"""Examples of the hold-out that a look at it takes, by kind: a percent of 600 digits is six pictures. The
larger the pictures, the fewer; a street scene has thousands of labels."""


@dataclass(frozen=True)
class Source:
    """Holds D_S = {(x_s, y_s)}, split once into what is trained on and what only watches.

    Attributes
    ----------
    trained
        The part that G and F_g are trained on.
    watched
        The hold-out, which the guard and the metrics look at, never trained on.
    look
        How many of `watched` a look takes.
    augmentation
        Of the inputs' kind.
    standardise, randomise
        Whether those extras are on.
    backgrounds
        Photo patches (M, 3, H, W) for the extra `inputs.scenery`; None where it is off.
    device
        Where the network is.
    """

    trained: Examples
    watched: Examples
    look: int
    augmentation: Augmentation
    standardise: bool
    randomise: bool
    backgrounds: Tensor | None
    device: torch.device

    @classmethod
    def load(cls, settings: AdaptationSettings, device: torch.device) -> "Source":
        """Load the source domain's training part and split off the hold-out, by the seed.

        Raises
        ------
        DataError
            If it can't be read, or has too few labelled examples to train on; unlabelled ones are left out.
        """
        data, given = family(settings.data.name), settings.data
        domain = data.load(given.source, "train", spec_of(settings))
        examples = domain.with_known_labels().limited(
            settings.data.source_limit, seed_for(settings.seed, "source limit")
        )
        if len(examples) < LEAST_EXAMPLES or not examples.labelled:
            raise DataError(
                f"source {given.source}: {len(examples)} examples (data.source-limit={given.source_limit}), "
                f"{'labelled' if examples.labelled else 'none labelled'}; {LEAST_EXAMPLES} labelled ones are needed"
            )
        order = np.random.default_rng(seed_for(settings.seed, "hold-out")).permutation(len(examples))
        cut = max(1, round(given.hold_out * len(examples)))
        backgrounds = None
        if settings.inputs.randomise and settings.inputs.scenery:
            seed = seed_for(settings.seed, "backgrounds") % 2**31
            backgrounds = patches(BACKGROUNDS, settings.shape[-1], seed, "source").to(device)
        return cls(
            trained=examples.select(np.sort(order[cut:])),
            watched=examples.select(np.sort(order[:cut])),
            look=WATCHED[data.kind],
            augmentation=AUGMENTATIONS[data.kind],
            standardise=settings.inputs.standardise,
            randomise=settings.inputs.randomise,
            backgrounds=backgrounds,
            device=device,
        )

    def __len__(self) -> int:
        return len(self.trained)

    def plain(self) -> "Source":
        """The same examples without any extra."""
        return replace(self, standardise=False, randomise=False, backgrounds=None)

    def batch(self, chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Training examples as inputs, float32 (B, ...), randomised and prepared, and labels, int64.

        Parameters
        ----------
        chosen
            Which ones: int64 (B,) on the CPU.
        generator
            Source of the randomisation.
        """
        return self._prepared(self.trained, chosen, generator)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A random mini-batch (x_s, y_s) of `count`, as `batch` gives it."""
        return self.batch(torch.randint(len(self), (count,), generator=generator), generator)

    def held_out(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`look` examples of the hold-out, randomised and prepared as batches are.

        A larger hold-out is drawn from; a smaller one comes several times, each time randomised anew.
        """
        order = torch.randperm(len(self.watched), generator=generator)
        return self._prepared(self.watched, order.repeat(-(-self.look // len(order)))[: self.look], generator)

    def _prepared(self, examples: Examples, chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        inputs, labels = examples.inputs[chosen].to(self.device), examples.labels[chosen].to(self.device)
        if self.randomise:
            inputs, labels = self.augmentation.randomise(inputs, labels, generator, self.backgrounds)
        return self.augmentation.prepare(inputs, self.standardise), labels.long()
