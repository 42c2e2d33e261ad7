"""Holds DDPM: a network learns to predict the noise in a picture, and sampling takes the noise out step by step.

Ho, Jain and Abbeel, "Denoising diffusion probabilistic models", NeurIPS 2020; chapter 4 of the notes. The noise
process is in `diffusion_schedule`, the network is any module from (x_t, t) to epsilon.

Our choice: both as in the official code, the mean over the dimensions of a picture in the loss, and the clipped
estimate of x_0.

Shapes: B examples, pictures (B, C, H, W), T steps; t is an index from 0, as in `diffusion_schedule`.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fmtda.generative.diffusion_schedule import DiffusionSchedule, Gaussian, spaced_steps
from fmtda.generative.image_network import ImageNetwork
from fmtda.generative.images import Images, PictureModelSettings
from fmtda.generative.model import GenerativeModel, RegisteredModel, unreported
from fmtda.generative.noise import integers, normal, normal_like
from fmtda.generative.pixels import from_signed, to_signed
from fmtda.protocol.tables import Scalar, SettingsError, setting

HALF_PIXEL = 1 / 255  # half the distance of two pixel values in [-1, 1]
SMALLEST_PROBABILITY = 1e-12  # of a pixel value: bounds the decoder's loss, as in DDPM's official code


class VariationalBound(NamedTuple):
    """Holds the negative variational bound on log p(x_0), in bits per dimension, as the mean over a batch.

    Attributes
    ----------
    prior : Tensor, scalar
        L_T: how far x_T is from standard normal. Nothing can be learned about it.
    transitions : Tensor, (T - 1,)
        L_{t-1} of the steps t = 1, ..., T - 1: the divergence of the reverse step from the posterior.
    decoder : Tensor, scalar
        L_0: the code length of the pixels given x_1.
    """

    prior: Tensor
    transitions: Tensor
    decoder: Tensor

    @property
    def total(self) -> Tensor:
        """Add up L_T, all L_{t-1} and L_0."""
        return self.prior + self.transitions.sum() + self.decoder


class DDPM(GenerativeModel):
    """This is a diffusion model of pictures.

    Parameters
    ----------
    network : nn.Module
        epsilon_theta: from x_t (B, C, H, W) and t (B,) to the noise in x_t, (B, C, H, W).
    schedule : DiffusionSchedule
    image_shape : tuple of int
        (C, H, W) of what `sample` draws.
    implicit_steps : int
        How `sample` does it: 0 by the T ancestral steps, otherwise by as many steps of DDIM.
    implicit_eta : float
        Of DDIM, from 0, deterministic, to 1, with as much fresh noise as ancestral steps of that length have.

    Raises
    ------
    ValueError
        If there are more DDIM steps than steps, or eta is not in [0, 1].
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: DiffusionSchedule,
        image_shape: tuple[int, int, int],
        implicit_steps: int = 0,
        implicit_eta: float = 0.0,
    ):
        super().__init__()
        if not 0 <= implicit_steps <= schedule.timesteps:
            raise ValueError(f"implicit_steps={implicit_steps} must be between 0 and timesteps={schedule.timesteps}")
        if not 0 <= implicit_eta <= 1:
            raise ValueError(f"implicit_eta={implicit_eta} must be between 0 and 1")
        self.network = network
        self.schedule = schedule
        self.image_shape = image_shape
        self.implicit_steps = implicit_steps
        self.implicit_eta = implicit_eta

    def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Compute L_simple (Eq. 14): the squared error of the predicted noise at a random step of every example.

        It is the mean over the dimensions of a picture instead of their sum, as in the official code.
        """
        clean = to_signed(batch)
        t = integers(self.schedule.timesteps, len(clean), generator, clean.device)
        noise = normal_like(clean, generator)
        return functional.mse_loss(self.network(self.schedule.noised(clean, t, noise), t), noise)

    @property
    def sampling_steps(self) -> int:
        return self.implicit_steps or self.schedule.timesteps

    def sample(self, count: int, generator: torch.Generator, advance: Callable[[int], None] = unreported) -> Tensor:
        if self.implicit_steps:
            how = (self.implicit_steps, generator, self.implicit_eta, advance)
            return from_signed(self.sample_implicitly(count, *how))
        return from_signed(self.sample_ancestrally(count, generator, advance))

    @torch.no_grad()
    def sample_ancestrally(
        self, count: int, generator: torch.Generator, advance: Callable[[int], None] = unreported
    ) -> Tensor:
        """Follow Algorithm 2: from standard normal x_T, draw p(x_{t-1} | x_t) again and again; (count, C, H, W)."""
        images = self._pure_noise(count, generator)
        for t in reversed(range(self.schedule.timesteps)):
            step = self.reverse(images, self._everywhere(t, count))
            images = step.mean
            if t > 0:
                images = images + (step.log_variance / 2).exp() * normal_like(images, generator)
            advance(1)
        return images

    @torch.no_grad()
    def sample_implicitly(
        self,
        count: int,
        steps: int,
        generator: torch.Generator,
        eta: float = 0.0,
        advance: Callable[[int], None] = unreported,
    ) -> Tensor:
        """Follow DDIM through `steps` of the T steps, evenly spaced, without chance at eta = 0; (count, C, H, W)."""
        images = self._pure_noise(count, generator)
        visited = spaced_steps(self.schedule.timesteps, steps)
        for t, earlier in zip(visited, [*visited[1:], -1], strict=True):
            everywhere = self._everywhere(t, count)
            clean = self.predict_clean(images, everywhere)
            noise = self.schedule.noise_between(images, everywhere, clean)
            fresh = normal_like(images, generator) if eta > 0 else None
            images = self.schedule.implicit_step(images, t, earlier, noise, eta, fresh)
            advance(1)
        return images

    def predict_clean(self, noisy: Tensor, t: Tensor) -> Tensor:
        """Compute the network's estimate of x_0, clipped to the range of pictures."""
        return self.schedule.denoised(noisy, t, self.network(noisy, t)).clamp(-1, 1)

    def reverse(self, noisy: Tensor, t: Tensor) -> Gaussian:
        """Compute p(x_{t-1} | x_t): the posterior's mean with the estimate in place of x_0, and the fixed variance.

        Notes
        -----
        Where the estimate lies within [-1, 1], the mean is the schedule's `reverse_mean` of the predicted noise.
        Clipping it, as the official code does, keeps errors of the first steps from growing.
        """
        mean = self.schedule.posterior(self.predict_clean(noisy, t), noisy, t).mean
        return Gaussian(mean, self.schedule.reverse_log_variance(noisy, t))

    @torch.no_grad()
    def bound(
        self, batch: Tensor, generator: torch.Generator, advance: Callable[[int], None] = unreported
    ) -> VariationalBound:
        """Estimate the bound of Eq. 5, every term from one draw of x_t an example.

        Parameters
        ----------
        batch : Tensor, (B, C, H, W), uint8
        generator : torch.Generator
        advance : callable
            Called with 1 after each of the T terms that need the network.
        """
        clean = to_signed(batch)
        terms = []
        for t in range(self.schedule.timesteps):
            everywhere = self._everywhere(t, len(clean))
            noisy = self.schedule.noised(clean, everywhere, normal_like(clean, generator))
            predicted = self.reverse(noisy, everywhere)
            if t == 0:
                terms.append(-pixel_log_likelihood(clean, predicted).mean())
            else:
                terms.append(divergence(self.schedule.posterior(clean, noisy, everywhere), predicted).mean())
            advance(1)
        last = self._everywhere(self.schedule.timesteps - 1, len(clean))
        standard = Gaussian(torch.zeros_like(clean), clean.new_zeros(()))
        prior = divergence(self.schedule.marginal(clean, last), standard).mean()
        bits = torch.stack([prior, *terms]) / math.log(2)
        return VariationalBound(prior=bits[0], transitions=bits[2:], decoder=bits[1])

    def _pure_noise(self, count: int, generator: torch.Generator) -> Tensor:
        return normal((count, *self.image_shape), generator, self.schedule.abar.device)

    def _everywhere(self, t: int, count: int) -> Tensor:
        return torch.full((count,), t, device=self.schedule.abar.device)


class DDPMSettings(PictureModelSettings):
    """The settings of a DDPM."""

    timesteps: int = setting(1000, ge=2, le=100_000, description="T: steps of the noise process")
    schedule: Literal["linear", "cosine"] = setting("cosine", description="of the variances beta_t")
    variance: Literal["posterior", "beta"] = setting("posterior", description="sigma_t^2 of the reverse process")
    implicit_steps: int = setting(
        50, ge=0, description="steps of DDIM that samples in a run are drawn with; 0: all T ancestral ones"
    )
    implicit_eta: float = setting(
        1.0, ge=0, le=1, description="eta of DDIM: 0 deterministic, 1 with as much fresh noise as ancestral steps"
    )

    def sampled_by(self, sampler: str | None, steps: int | None) -> dict[str, Scalar]:
        """Choose between `ddpm`, all ancestral steps, and `ddim`, `steps` implicit ones."""
        if sampler not in (None, "ddpm", "ddim"):
            raise SettingsError(f"--sampler {sampler}: no such sampler; allowed are ddpm, ddim")
        if steps is not None and sampler != "ddim":
            raise SettingsError(f"--steps {steps}: only --sampler ddim has a number of steps; add it, or leave it out")
        if sampler is None:
            return {}
        return {"implicit-steps": (steps or 50) if sampler == "ddim" else 0}


def build(settings: Any) -> DDPM:
    """Build the model by the settings of a run, whose `model` is a `DDPMSettings`."""
    own: DDPMSettings = settings.model
    network = ImageNetwork(own.channels, own.image_size, own.width)
    schedule = DiffusionSchedule(own.schedule, own.timesteps, own.variance)
    image_shape = (own.channels, own.image_size, own.image_size)
    return DDPM(network, schedule, image_shape, own.implicit_steps, own.implicit_eta)


REGISTERED = RegisteredModel(DDPMSettings, build, ("diffusers",), Images())


def divergence(p: Gaussian, q: Gaussian) -> Tensor:
    """Compute the Kullback-Leibler divergence KL(p || q) of every dimension in nats."""
    log_ratio = q.log_variance - p.log_variance
    squared_distance = (p.mean - q.mean).square() * (-q.log_variance).exp()
    return (log_ratio + (-log_ratio).exp() + squared_distance - 1) / 2


def pixel_log_likelihood(clean: Tensor, predicted: Gaussian) -> Tensor:
    """Compute Eq. 13: the log-probability that a Gaussian gives to every pixel's interval, in nats.

    Each of the 256 values owns the interval of half a step around it; the outermost two reach to infinity, so that
    the probabilities of all values sum to one.

    Parameters
    ----------
    clean : Tensor, (B, C, H, W)
        Pixels scaled to [-1, 1].
    predicted : Gaussian
        Of the same shape.

    Returns
    -------
    Tensor, (B, C, H, W)
    """
    precision = (-predicted.log_variance / 2).exp()
    above = torch.special.ndtr((clean + HALF_PIXEL - predicted.mean) * precision)
    below = torch.special.ndtr((clean - HALF_PIXEL - predicted.mean) * precision)
    above = torch.where(clean > 1 - HALF_PIXEL, 1.0, above)
    below = torch.where(clean < -1 + HALF_PIXEL, 0.0, below)
    return (above - below).clamp(min=SMALLEST_PROBABILITY).log()
