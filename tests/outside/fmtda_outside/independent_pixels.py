"""A generative model: every pixel is normal and knows nothing of the others."""

import torch
from torch import Tensor, nn

from fmtda.generative.images import Images, PictureModelSettings
from fmtda.generative.model import GenerativeModel, RegisteredModel, unreported
from fmtda.protocol.tables import setting


class IndependentPixelsSettings(PictureModelSettings):
    """Its table of settings."""

    usual = {
        "rounds": 2,
        "training.steps": 3,
        "training.batch": 8,
        "training.learning-rate": 0.1,
        "training.moments": "fresh",
        "training.ema-decay": 0.0,
        "samples.quality": 0,
    }

    least_spread: float = setting(
        0.01, gt=0, description="what the spread of a pixel, of values in [0, 1], never falls below"
    )


class IndependentPixels(GenerativeModel):
    """A mean and a spread a pixel."""

    def __init__(self, shape: tuple[int, int, int], least_spread: float) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.rand(shape))
        self.log_spread = nn.Parameter(torch.zeros(shape))
        self.least_spread = least_spread

    def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        spread = self.log_spread.exp() + self.least_spread
        return ((batch / 255 - self.mean) ** 2 / (2 * spread**2) + spread.log()).mean()

    def sample(self, count: int, generator: torch.Generator, advance=unreported) -> Tensor:
        noise = torch.randn((count, *self.mean.shape), generator=generator)
        advance(1)
        return (255 * (self.mean + noise * (self.log_spread.exp() + self.least_spread))).clamp(0, 255).byte().detach()

    @property
    def sampling_steps(self) -> int:
        return 1


def build(settings) -> IndependentPixels:
    own = settings.model
    return IndependentPixels((own.channels, own.image_size, own.image_size), own.least_spread)


REGISTERED = RegisteredModel(IndependentPixelsSettings, build, (), Images())
