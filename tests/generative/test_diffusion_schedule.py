"""The process is diffusers' to 1e-5, and its closed forms are Bayes' rule."""

import pytest
import torch
from torch import Tensor

from fmtda.generative.diffusion_schedule import SCHEDULES, DiffusionSchedule, betas, spaced_steps
from fmtda.protocol.runtime import repair_torchvision

repair_torchvision()
from diffusers import DDIMScheduler, DDPMScheduler  # noqa: E402 - it imports torchvision

STEPS = {"linear": [(1000, 1e-4, 0.02), (50, 2e-3, 0.4)], "cosine": [(1000, 0, 0), (50, 0, 0)]}
CASES = [(schedule, *steps) for schedule in SCHEDULES for steps in STEPS[schedule]]


def of_diffusers(kind: type, schedule: str, timesteps: int, first: float, last: float, **settings):
    name = {"linear": "linear", "cosine": "squaredcos_cap_v2"}[schedule]
    scheduler = kind(timesteps, beta_schedule=name, beta_start=first, beta_end=last, **settings)
    # diffusers goes from x_t to x_{t-1} by way of x_0, which costs float32 two digits at the last steps
    scheduler.betas = scheduler.betas.double()
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = scheduler.alphas.cumprod(0)
    return scheduler


def pictures(seed: int, count: int = 5) -> Tensor:
    return torch.randn((count, 1, 4, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("case", CASES)
def test_betas_and_noised_pictures_are_those_of_diffusers(case):
    ours, theirs = DiffusionSchedule(*case[:2]), of_diffusers(DDPMScheduler, *case)
    torch.testing.assert_close(betas(*case[:2]), theirs.betas, atol=1e-6, rtol=1e-5)
    t = torch.tensor([0, 1, 7, case[1] // 2, case[1] - 1])
    clean, noise = pictures(0).clamp(-1, 1), pictures(1)
    torch.testing.assert_close(ours.noised(clean, t, noise), theirs.add_noise(clean, noise, t), atol=1e-5, rtol=0)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
@pytest.mark.parametrize("case", CASES)
def test_reverse_steps_are_those_of_diffusers(case, variance):
    ours = DiffusionSchedule(*case[:2], variance)
    variance_type = {"posterior": "fixed_small", "beta": "fixed_large"}[variance]
    theirs = of_diffusers(DDPMScheduler, *case, variance_type=variance_type, clip_sample=False)
    noisy, noise = pictures(0), pictures(1)
    for t in (0, 1, 7, case[1] // 2, case[1] - 2):
        everywhere = torch.full((5,), t)
        fresh = pictures(2) if t > 0 else torch.zeros(5, 1, 4, 4)
        ours_before = ours.reverse_mean(noisy, everywhere, noise)
        ours_before = ours_before + (ours.reverse_log_variance(noisy, everywhere) / 2).exp() * fresh
        drawn = torch.Generator().manual_seed(2)  # of pictures(2)
        theirs_before = theirs.step(noise, t, noisy, generator=drawn).prev_sample
        torch.testing.assert_close(ours_before, theirs_before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("case", CASES)
def test_implicit_steps_are_those_of_diffusers(case, eta):
    ours = DiffusionSchedule(*case[:2])
    theirs = of_diffusers(DDIMScheduler, *case, clip_sample=False, timestep_spacing="trailing")
    theirs.set_timesteps(10)
    visited = spaced_steps(case[1], 10)
    assert visited == theirs.timesteps.tolist()
    noisy, noise, fresh = pictures(0), pictures(1), pictures(2)
    for t, earlier in zip(visited[1:], [*visited[2:], -1], strict=True):
        ours_before = ours.implicit_step(noisy, t, earlier, noise, eta, fresh)
        theirs_before = theirs.step(noise, t, noisy, eta=eta, variance_noise=fresh if eta else None).prev_sample
        torch.testing.assert_close(ours_before, theirs_before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_posterior_is_bayes_rule(schedule):
    ours, beta = DiffusionSchedule(schedule, 60), betas(schedule, 60)
    abar = (1 - beta).cumprod(0)
    clean, noisy = pictures(0), pictures(1)
    for t in (1, 20, 59):
        # q(x_t | x_{t-1}) as a function of x_{t-1} is a Gaussian around x_t / sqrt(a), times q(x_{t-1} | x_0)
        likelihood_precision, prior_precision = (1 - beta[t]) / beta[t], 1 / (1 - abar[t - 1])
        precision = likelihood_precision + prior_precision
        likelihood_mean, prior_mean = noisy / (1 - beta[t]).sqrt(), abar[t - 1].sqrt() * clean
        mean = (likelihood_precision * likelihood_mean + prior_precision * prior_mean) / precision
        posterior = ours.posterior(clean, noisy, torch.full((5,), t))
        torch.testing.assert_close(posterior.mean, mean, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(posterior.log_variance.exp().double().flatten()[0], 1 / precision, rtol=1e-5, atol=0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_reverse_mean_is_the_posterior_of_the_estimate_and_not_the_formula_of_the_notes(schedule):
    ours, t = DiffusionSchedule(schedule, 100), torch.tensor([1, 5, 30, 60, 90])
    noisy, noise = pictures(0), pictures(1)
    estimate = ours.denoised(noisy, t, noise)
    mean = ours.reverse_mean(noisy, t, noise)
    torch.testing.assert_close(mean, ours.posterior(estimate, noisy, t).mean, atol=1e-4, rtol=1e-4)
    assert ((mean - estimate).abs().amax(dim=(1, 2, 3)) > 1e-2).all()  # what the notes have instead


def test_noise_and_clean_picture_come_back():
    ours, t = DiffusionSchedule("cosine", 100), torch.tensor([0, 10, 40, 70, 90])
    clean, noise = pictures(0), pictures(1)
    noisy = ours.noised(clean, t, noise)
    torch.testing.assert_close(ours.denoised(noisy, t, noise), clean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.noise_between(noisy, t, clean), noise, atol=1e-4, rtol=1e-4)


def test_the_linear_schedule_loses_as_much_signal_in_fewer_steps():
    full, short = (DiffusionSchedule("linear", timesteps).abar[-1].item() for timesteps in (1000, 100))
    assert full < 5e-5 and short < 5e-5


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("sigmoid", 100), "schedule='sigmoid' is unknown; allowed are linear, cosine"),
        (("linear", 20), "timesteps=20 must be at least 21 with schedule='linear'"),
        (("cosine", 1), "timesteps=1 must be at least 2"),
        (("cosine", 100, "learned"), "variance='learned' is unknown; allowed are posterior, beta"),
    ],
)
def test_what_is_no_schedule_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DiffusionSchedule(*arguments)


@pytest.mark.parametrize("steps", [0, 101])
def test_a_sampler_cannot_visit_more_steps_than_there_are(steps):
    with pytest.raises(ValueError, match=f"steps={steps} must be between 1 and timesteps=100"):
        spaced_steps(100, steps)
