"""Holds the diffusion process of DDPM: how much noise each step adds, and what follows from it in closed form.

It knows no network. Sources: DDPM is Ho, Jain and Abbeel, "Denoising diffusion probabilistic models", NeurIPS 2020;
the cosine schedule is Nichol and Dhariwal, "Improved denoising diffusion probabilistic models", ICML 2021; DDIM is
Song, Meng and Ermon, "Denoising diffusion implicit models", ICLR 2021.

Shapes: B examples, then any shape of an example. A step is an index t from 0 to T - 1, int64 (B,): t = 0 is the
papers' step 1, and the clean x_0 has no index. Below, a_t = 1 - beta_t and abar_t = a_1 ... a_t.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

SCHEDULES = ("linear", "cosine")
VARIANCES = ("posterior", "beta")

FIRST_BETA, LAST_BETA = 1e-4, 0.02  # of the linear schedule at 1,000 steps (DDPM, section 4)
COSINE_OFFSET = 0.008  # keeps the first steps of the cosine schedule from being too small
LARGEST_BETA = 0.999  # the cosine schedule would end at 1


class Gaussian(NamedTuple):
    """This is a diagonal Gaussian: its mean and the logarithm of its variance, which broadcast against each other."""

    mean: Tensor
    log_variance: Tensor


def betas(schedule: str, timesteps: int) -> Tensor:
    """Compute the variance that each step adds.

    Parameters
    ----------
    schedule : {"linear", "cosine"}
        The linear one runs from 1e-4 to 0.02 at 1,000 steps, and is multiplied by 1000 / T at others, so that the
        signal is as lost at the end. The cosine one lets abar_t fall as a squared cosine.
    timesteps : int
        T.

    Returns
    -------
    Tensor, (T,), float64

    Raises
    ------
    ValueError
        If the schedule is unknown or there are too few steps for it.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule={schedule!r} is unknown; allowed are {', '.join(SCHEDULES)}")
    if timesteps < 2:
        raise ValueError(f"timesteps={timesteps} must be at least 2")
    if schedule == "linear":
        scale = 1000 / timesteps
        if scale * LAST_BETA >= 1:
            raise ValueError(f"timesteps={timesteps} must be at least 21 with schedule='linear'; 'cosine' takes fewer")
        return torch.linspace(scale * FIRST_BETA, scale * LAST_BETA, timesteps, dtype=torch.float64)
    progress = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
    signal = ((progress + COSINE_OFFSET) / (1 + COSINE_OFFSET) * math.pi / 2).cos().square()
    return (1 - signal[1:] / signal[:-1]).clamp(max=LARGEST_BETA)


class DiffusionSchedule(nn.Module):
    """Holds the forward process q and what is known of its reversal.

    Parameters
    ----------
    schedule : {"linear", "cosine"}
        See `betas`.
    timesteps : int
        T.
    variance : {"posterior", "beta"}
        sigma_t^2 of the reverse process: the variance of q(x_{t-1} | x_t, x_0), which is the right one for data
        that are a single point, or beta_t, the right one for data that are standard normal.

    Notes
    -----
    The tables are computed in float64 and kept in float32, as buffers that move with a model and stay out of its
    state dict.
    """

    abar: Tensor
    signal: Tensor
    spread: Tensor
    log_spread_variance: Tensor
    clean_share: Tensor
    noisy_share: Tensor
    posterior_log_variance: Tensor
    _reverse_log_variance: Tensor
    mean_scale: Tensor
    mean_noise: Tensor

    def __init__(self, schedule: str, timesteps: int, variance: str = "posterior"):
        super().__init__()
        if variance not in VARIANCES:
            raise ValueError(f"variance={variance!r} is unknown; allowed are {', '.join(VARIANCES)}")
        self.timesteps = timesteps
        beta = betas(schedule, timesteps)
        alpha, abar = 1 - beta, (1 - beta).cumprod(0)
        abar_before = torch.cat([abar.new_ones(1), abar[:-1]])
        posterior_variance = beta * (1 - abar_before) / (1 - abar)
        tables = {
            "abar": abar,
            "signal": abar.sqrt(),
            "spread": (1 - abar).sqrt(),
            "log_spread_variance": (1 - abar).log(),
            "clean_share": beta * abar_before.sqrt() / (1 - abar),
            "noisy_share": (1 - abar_before) * alpha.sqrt() / (1 - abar),
            "posterior_log_variance": _log_from_second(posterior_variance, posterior_variance),
            "_reverse_log_variance": _log_from_second(
                posterior_variance if variance == "posterior" else beta, posterior_variance
            ),
            "mean_scale": 1 / alpha.sqrt(),
            "mean_noise": beta / (1 - abar).sqrt(),
        }
        for name, table in tables.items():
            self.register_buffer(name, table.float(), persistent=False)

    def marginal(self, clean: Tensor, t: Tensor) -> Gaussian:
        """Return q(x_t | x_0) = N(sqrt(abar_t) x_0, 1 - abar_t), DDPM's Eq. 4; `clean` is x_0 (B, ...)."""
        return Gaussian(_at(self.signal, t, clean) * clean, _at(self.log_spread_variance, t, clean))

    def noised(self, clean: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Make a draw of q(x_t | x_0) of standard normal `noise`: t steps at once."""
        return _at(self.signal, t, clean) * clean + _at(self.spread, t, clean) * noise

    def denoised(self, noisy: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Return the x_0 that `noised` came from, or the estimate of it where `noise` is predicted."""
        return (noisy - _at(self.spread, t, noisy) * noise) / _at(self.signal, t, noisy)

    def noise_between(self, noisy: Tensor, t: Tensor, clean: Tensor) -> Tensor:
        """Return the noise that leads from x_0 to x_t."""
        return (noisy - _at(self.signal, t, noisy) * clean) / _at(self.spread, t, noisy)

    def posterior(self, clean: Tensor, noisy: Tensor, t: Tensor) -> Gaussian:
        """Return q(x_{t-1} | x_t, x_0), DDPM's Eq. 6 and 7.

        Its variance is zero at t = 0, where x_0 is known; the logarithm given there is that of t = 1 (as DDPM's
        official code has it), and nothing adds noise by it.
        """
        mean = _at(self.clean_share, t, noisy) * clean + _at(self.noisy_share, t, noisy) * noisy
        return Gaussian(mean, _at(self.posterior_log_variance, t, noisy))

    def reverse_mean(self, noisy: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Compute mu(x_t, t) = (x_t - beta_t / sqrt(1 - abar_t) epsilon) / sqrt(a_t), DDPM's Eq. 11.

        Notes
        -----
        The notes on the paper have (x_t - sqrt(1 - abar_t) epsilon) / sqrt(abar_t), which is the estimate of x_0
        (`denoised`) and not the mean of the step before. It is the posterior's mean that the reverse process has
        to meet, so that estimate goes into Eq. 7::

            mu = sqrt(abar_{t-1}) beta_t / (1 - abar_t) x_0  +  sqrt(a_t) (1 - abar_{t-1}) / (1 - abar_t) x_t

        With x_0 = (x_t - sqrt(1 - abar_t) epsilon) / sqrt(abar_t) and abar_t = a_t abar_{t-1}, the factor of
        x_t becomes (beta_t + a_t (1 - abar_{t-1})) / ((1 - abar_t) sqrt(a_t)) = 1 / sqrt(a_t), because
        beta_t + a_t - abar_t = 1 - abar_t; and that of epsilon becomes -beta_t / (sqrt(a_t) sqrt(1 - abar_t)).
        The factor that the notes lack is beta_t / (1 - abar_t) before sqrt(1 - abar_t), and their abar_t is a_t.
        """
        return _at(self.mean_scale, t, noisy) * (noisy - _at(self.mean_noise, t, noisy) * noise)

    def reverse_log_variance(self, noisy: Tensor, t: Tensor) -> Tensor:
        """Return log sigma_t^2 of the reverse process, which broadcasts over `noisy`."""
        return _at(self._reverse_log_variance, t, noisy)

    def implicit_step(
        self, noisy: Tensor, t: int, earlier: int, noise: Tensor, eta: float = 0.0, fresh: Tensor | None = None
    ) -> Tensor:
        """Go from x_t to x_s, any number of steps earlier, by DDIM's Eq. 12.

        Parameters
        ----------
        noisy : Tensor, (B, ...)
            x_t.
        t, earlier : int
            Where from and where to; `earlier` = -1 leads to x_0.
        noise : Tensor, (B, ...)
            Predicted.
        eta : float
            0 for the deterministic step; 1 has the variance of DDPM's posterior.
        fresh : Tensor, (B, ...)
            Standard normal; unused at eta = 0.
        """
        abar = self.abar[t]
        abar_earlier = self.abar[earlier] if earlier >= 0 else torch.ones_like(abar)
        clean = (noisy - (1 - abar).sqrt() * noise) / abar.sqrt()
        variance = eta**2 * (1 - abar_earlier) / (1 - abar) * (1 - abar / abar_earlier)
        step = abar_earlier.sqrt() * clean + (1 - abar_earlier - variance).sqrt() * noise
        return step if fresh is None else step + variance.sqrt() * fresh


def spaced_steps(timesteps: int, steps: int) -> list[int]:
    """List `steps` indices from T - 1 downwards, evenly spaced, for DDIM to visit.

    They start where there is nothing but noise, as the sampler does ("trailing" in Lin et al. 2024, "Common
    diffusion noise schedules and sample steps are flawed").
    """
    if not 1 <= steps <= timesteps:
        raise ValueError(f"steps={steps} must be between 1 and timesteps={timesteps}")
    return [round(timesteps * (steps - i) / steps) - 1 for i in range(steps)]


def _at(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """The table's values at t, (B,) or a single index, shaped to broadcast over examples."""
    return table[t].view(-1, *[1] * (like.ndim - 1))


def _log_from_second(variances: Tensor, posterior: Tensor) -> Tensor:
    """Logarithms with the first one, 0 or too wide for a decoder, replaced by the posterior's second."""
    return torch.cat([posterior[1:2], variances[1:]]).log()
