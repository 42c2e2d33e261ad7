"""Makes pictures the examples of a model: brought to its size and colour, and laid out in a grid.

Our choice: how many pictures are brought to size at once, and how large they are shown.
"""

import math
import os
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from fmtda.generative.example_kind import ExampleKind, Judge
from fmtda.generative.image_quality import image_grid, judge, train_classifier
from fmtda.generative.model import ModelSettings
from fmtda.protocol.tables import setting

GREY = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in ITU-R BT.601's luma."""

BLOCK = 1024
"""How many pictures are brought to size at once."""

SHOWN_SIDE = 64
"""About how many pixels a side of a picture has in a grid at least."""


class PictureModelSettings(ModelSettings):
    """What the models of pictures share."""

    usual = {
        "rounds": 100,
        "training.steps": 20,
        "training.batch": 64,
        "training.learning-rate": 2e-3,
        "training.moments": "averaged",
        "training.ema-decay": 0.75,
    }

    image_size: int = setting(16, ge=4, le=512, description="side of the square pictures that the model sees and makes")
    colour: Literal["grey", "rgb"] = setting("grey", description="colour of these pictures")
    width: int = setting(16, ge=8, description="channels of the network at full size, a multiple of 8")

    @property
    def channels(self) -> int:
        """Of a picture."""
        return 1 if self.colour == "grey" else 3


class Images(ExampleKind):
    """This is the kind of uint8 pictures (N, C, H, W), values 0 to 255."""

    suffix = ".png"

    def check(self, settings: Any) -> None:
        if len(settings.shape) != 3 or settings.shape[0] != 3:
            shape = "x".join(map(str, settings.shape))
            raise ValueError(
                f"data.name={settings.data.name}: its inputs are {shape} and no pictures (3xHEIGHTxWIDTH), which "
                f"{settings.workload} learns; take data of pictures, such as digits"
            )

    def examples(self, inputs: Any, settings: Any) -> Tensor:
        """Pictures uint8 (N, 3, H, W) as uint8 (N, `channels`, `image_size`, `image_size`)."""
        size, channels = settings.model.image_size, settings.model.channels
        blocks = [_fit(inputs[start : start + BLOCK], size, channels) for start in range(0, len(inputs), BLOCK)]
        return torch.cat(blocks) if blocks else torch.empty(0, channels, size, size, dtype=torch.uint8)

    def judge(self, real: Tensor, labels: Tensor, settings: Any, seed: int) -> Judge:
        """Train a small classifier on the real pictures; no Inception FID, see `generative.image_quality`."""
        classifier = train_classifier(real, labels, len(settings.class_names), seed)

        def quality(samples: Tensor) -> dict[str, Any]:
            if len(samples) < 2:
                raise ValueError(f"{len(samples)} sample: a distance needs two at least")
            judged = judge(classifier, real, samples)
            return {
                "frechet_distance": judged.frechet_distance,
                "confident_share": judged.confident_share,
                "class_shares": judged.class_shares.tolist(),
                "samples": len(samples),
            }

        return quality

    def picture(self, samples: Tensor, settings: Any) -> Tensor:
        """Lay a grid as square as can be, filled line by line; small pictures are enlarged by a whole number."""
        enlarged = max(1, SHOWN_SIDE // max(samples.shape[-2:]))
        grid = image_grid(samples, columns=math.ceil(math.sqrt(len(samples))))
        return grid.repeat_interleave(enlarged, dim=1).repeat_interleave(enlarged, dim=2)

    def write(self, samples: Tensor, file: Path, settings: Any) -> None:
        aside = file.with_name(f".{file.name}.{os.getpid()}")
        Image.fromarray(self.picture(samples, settings).permute(1, 2, 0).numpy()).save(aside, format="PNG")
        aside.rename(file)


def _fit(pictures: Tensor, size: int, channels: int) -> Tensor:
    """Each pixel becomes the mean over the area that it covers; grey is ITU's."""
    values = pictures.float()
    if channels == 1:
        values = (values * torch.tensor(GREY).view(3, 1, 1)).sum(dim=1, keepdim=True)
    return functional.interpolate(values, (size, size), mode="area").round().byte()
