"""Holds NCSN: a network learns the score of the data at several noise levels, and Langevin dynamics samples by it.

Song and Ermon, "Generative modeling by estimating gradients of the data distribution", NeurIPS 2019; chapter 5 of the
notes. Improvements of NCSNv2 (Song and Ermon, "Improved techniques for training score-based generative models",
NeurIPS 2020) that are here: a score divided by sigma, the fitting step size, the denoising last step.

Our choice: the scaling of the network's input, after Karras et al. 2022; the loss a dimension; and that sampling starts
from the noise of the first level around the middle of the range.

Shapes: B examples, pictures (B, C, H, W), L noise levels, T Langevin steps a level.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fmtda.generative import score_matching
from fmtda.generative.image_network import ImageNetwork
from fmtda.generative.images import Images, PictureModelSettings
from fmtda.generative.langevin import annealed_langevin, fitting_step_size, geometric_levels
from fmtda.generative.model import GenerativeModel, RegisteredModel, unreported
from fmtda.generative.noise import normal
from fmtda.generative.pixels import PIXEL_LEVELS, from_unit
from fmtda.protocol.tables import setting

OBJECTIVES = ("noise-conditional", "denoising", "sliced", "exact")

MIDDLE, LARGEST_DEVIATION = 0.5, 0.5  # of values in [0, 1]


class NCSN(GenerativeModel):
    """This is a score-based model of pictures.

    Parameters
    ----------
    network : nn.Module
        From scaled noisy pictures (B, C, H, W) and numbers (B,) from 0 to 1,000, the place among the levels, to
        (B, C, H, W).
    sigmas : list of float, L
        Noise levels, falling, for values in [0, 1].
    image_shape : tuple of int
        (C, H, W) of what `sample` draws.
    langevin_steps : int
        T.
    step_size : float
        epsilon of Algorithm 1; 0 takes the one that fits the levels and T (NCSNv2's technique 4).
    objective : {"noise-conditional", "denoising", "sliced", "exact"}
        Which loss of `score_matching`. All but the first learn the last level alone, and `sample` then runs plain
        Langevin dynamics there: they are what the paper argues against, to be tried. `exact` makes one backward
        pass a pixel and channel.
    denoise : bool
        End with one step to the expected clean picture, x + sigma_L^2 s(x), which takes out the noise of the last
        level (NCSNv2, section 3).

    Raises
    ------
    ValueError
        If the objective is unknown, or a number of steps or a step size is no such thing.

    Notes
    -----
    The score is the network's output divided by sigma, and the network sees (x - 1/2) / sqrt(sigma^2 + 1/4): both
    input and output are then of the same size at all levels. The first is NCSNv2's technique 3, the second follows
    Karras et al., "Elucidating the design space of diffusion-based generative models", 2022.
    """

    sigmas: Tensor

    def __init__(
        self,
        network: nn.Module,
        sigmas: list[float],
        image_shape: tuple[int, int, int],
        langevin_steps: int,
        step_size: float = 0.0,
        objective: str = "noise-conditional",
        denoise: bool = True,
    ):
        super().__init__()
        if objective not in OBJECTIVES:
            raise ValueError(f"objective={objective!r} is unknown; allowed are {', '.join(OBJECTIVES)}")
        if langevin_steps < 1:
            raise ValueError(f"langevin_steps={langevin_steps} must be at least 1")
        if step_size < 0:
            raise ValueError(f"step_size={step_size:g} must be positive, or 0 for the one that fits")
        self.network = network
        self.register_buffer("sigmas", torch.tensor(sigmas), persistent=False)
        self.image_shape = image_shape
        self.langevin_steps = langevin_steps
        self.step_size = step_size or fitting_step_size(sigmas, langevin_steps)
        self.objective = objective
        self.denoise = denoise

    def score(self, images: Tensor, level: Tensor) -> Tensor:
        """Compute s(x, sigma_i): noisy pictures (B, C, H, W) and indices of levels (B,) to (B, C, H, W)."""
        sigma = self.sigmas[level].view(-1, 1, 1, 1)
        scaled = (images - MIDDLE) / (sigma.square() + LARGEST_DEVIATION**2).sqrt()
        place = level * (1000 / max(1, len(self.sigmas) - 1))
        return self.network(scaled, place) / sigma

    def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Compute the objective, divided by the number of dimensions so that it does not grow with the picture."""
        points = dequantised(batch, generator)
        match self.objective:
            case "noise-conditional":
                losses = score_matching.noise_conditional(self.score, points, self.sigmas, generator)
            case "denoising":
                losses = score_matching.denoising(self.last_score, points, self.sigmas[-1].item(), generator)
            case "sliced":
                losses = score_matching.sliced(self.last_score, points, generator)
            case "exact":
                losses = score_matching.exact(self.last_score, points)
        return losses.mean() / batch[0].numel()

    def last_score(self, images: Tensor) -> Tensor:
        """Compute the score at the smallest noise level."""
        return self.score(images, self._everywhere(len(self.sigmas) - 1, len(images)))

    @property
    def annealed(self) -> bool:
        """Say whether all levels are learned, and sampling goes through them."""
        return self.objective == "noise-conditional"

    @property
    def sampling_steps(self) -> int:
        return self.langevin_steps * (len(self.sigmas) if self.annealed else 1)

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator, advance: Callable[[int], None] = unreported) -> Tensor:
        """Follow Algorithm 1, started from the noise of the first level around the middle of the range."""
        levels = range(len(self.sigmas)) if self.annealed else [len(self.sigmas) - 1]
        sigmas = [self.sigmas[level].item() for level in levels]
        noise = normal((count, *self.image_shape), generator, self.sigmas.device)
        images = annealed_langevin(
            lambda points, i: self.score(points, self._everywhere(levels[i], count)),
            MIDDLE + sigmas[0] * noise,
            sigmas,
            self.step_size,
            self.langevin_steps,
            generator,
            advance,
        )
        if self.denoise:
            images = images + sigmas[-1] ** 2 * self.last_score(images)
        return from_unit(images)

    def _everywhere(self, level: int, count: int) -> Tensor:
        return torch.full((count,), level, device=self.sigmas.device)


class NCSNSettings(PictureModelSettings):
    """The settings of an NCSN."""

    noise_levels: int = setting(45, ge=2, le=10_000, description="L: noise levels, falling geometrically")
    sigma_max: float = setting(7.0, gt=0, description="first of them, for pixel values in [0, 1]")
    sigma_min: float = setting(0.01, gt=0, description="last of them")
    langevin_steps: int = setting(5, ge=1, description="T: steps of Langevin dynamics at each level")
    langevin_step_size: float = setting(
        0.0, ge=0, description="epsilon of Algorithm 1; 0: the one that fits the levels"
    )
    objective: Literal["noise-conditional", "denoising", "sliced", "exact"] = setting(
        "noise-conditional", description="which loss; all but the first learn the last noise level alone"
    )
    denoise: bool = setting(True, description="end sampling with one step to the expected clean picture")


def build(settings: Any) -> NCSN:
    """Build the model by the settings of a run, whose `model` is an `NCSNSettings`."""
    own: NCSNSettings = settings.model
    return NCSN(
        ImageNetwork(own.channels, own.image_size, own.width),
        geometric_levels(own.sigma_max, own.sigma_min, own.noise_levels),
        (own.channels, own.image_size, own.image_size),
        own.langevin_steps,
        own.langevin_step_size,
        own.objective,
        own.denoise,
    )


REGISTERED = RegisteredModel(NCSNSettings, build, ("diffusers",), Images())


def dequantised(images: Tensor, generator: torch.Generator) -> Tensor:
    """Spread uint8 over float32 in [0, 1), each value anywhere in its interval: score matching needs a density.

    (value + u) / 256 with uniform u, as NCSN's official code has it.
    """
    spread = torch.rand(images.shape, generator=generator, device=generator.device).to(images.device)
    return (images + spread) / PIXEL_LEVELS
