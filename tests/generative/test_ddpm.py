"""With the exact network of Gaussian data, DDPM's samples and bound are those of the closed form."""

import math
from collections.abc import Mapping
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from fmtda.generative.ddpm import DDPM, DDPMSettings, divergence, pixel_log_likelihood
from fmtda.generative.diffusion_schedule import DiffusionSchedule, Gaussian
from fmtda.generative.pixels import from_signed, to_signed
from fmtda.generative.registry import build
from fmtda.protocol.runtime import repair_torchvision
from fmtda.protocol.tables import Scalar

repair_torchvision()
from diffusers import DDIMScheduler, DDPMScheduler  # noqa: E402 - it imports torchvision

MEAN, DEVIATION = 0.25, 0.2  # of every pixel, in [-1, 1]
SMALL = {"image-size": 8, "width": 8, "timesteps": 30, "implicit-steps": 0, "implicit-eta": 0.0}


class ExactNetwork(nn.Module):
    """E[epsilon | x_t] of pixels that are N(MEAN, DEVIATION^2) each."""

    def __init__(self, schedule: DiffusionSchedule):
        super().__init__()
        self.schedule = schedule

    def forward(self, noisy: Tensor, t: Tensor) -> Tensor:
        abar = self.schedule.abar[t].view(-1, 1, 1, 1)
        variance = abar * DEVIATION**2 + 1 - abar
        return (1 - abar).sqrt() * (noisy - abar.sqrt() * MEAN) / variance


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(changes: Mapping[str, Scalar] | None = None) -> DDPM:
    """A small model by its table of settings."""
    table = DDPMSettings.validated({**SMALL, **(changes or {})})
    return build("ddpm", SimpleNamespace(model=table), seed=0)


def exact(schedule="cosine", timesteps=1000, variance="posterior", image_shape=(1, 8, 8), **settings) -> DDPM:
    process = DiffusionSchedule(schedule, timesteps, variance)
    return DDPM(ExactNetwork(process), process, image_shape, **settings)


def gaussian_pictures(count: int) -> Tensor:
    return from_signed(MEAN + DEVIATION * torch.randn(count, 1, 8, 8, generator=generator(5)))


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_ancestral_samples_have_the_distribution_of_the_data(schedule):
    narrow, wide = (
        exact(schedule, 300, variance).sample_ancestrally(200, generator()) for variance in ("posterior", "beta")
    )
    for samples in (narrow, wide):
        assert samples.mean().item() == pytest.approx(MEAN, abs=0.01)
        assert samples.std().item() == pytest.approx(DEVIATION, rel=0.07)
    assert narrow.std() < DEVIATION < wide.std()  # the two variances bound the right one (DDPM, section 3.2)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_implicit_samples_have_the_distribution_of_the_data(schedule):
    model = exact(schedule)
    few, many = (model.sample_implicitly(200, steps, generator()) for steps in (50, 500))
    for samples, tolerance in ((few, 0.15), (many, 0.03)):
        assert samples.mean().item() == pytest.approx(MEAN, abs=0.01)
        assert samples.std().item() == pytest.approx(DEVIATION, rel=tolerance)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_whole_ancestral_chain_is_that_of_diffusers(schedule):
    model = exact(schedule, 50)
    name = {"linear": "linear", "cosine": "squaredcos_cap_v2"}[schedule]
    theirs = DDPMScheduler(50, beta_schedule=name, beta_start=2e-3, beta_end=0.4)
    draws = generator()
    images = torch.randn(3, 1, 8, 8, generator=draws)
    for t in theirs.timesteps:
        predicted = model.network(images, t.expand(3))
        images = theirs.step(predicted, t, images, generator=draws).prev_sample
    torch.testing.assert_close(model.sample_ancestrally(3, generator()), images, atol=1e-5, rtol=0)


def test_the_whole_implicit_chain_is_that_of_diffusers():
    model = exact("cosine", 50)
    theirs = DDIMScheduler(50, beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing")
    theirs.set_timesteps(10)
    draws = generator()
    images = torch.randn(3, 1, 8, 8, generator=draws)
    for t in theirs.timesteps:
        predicted = model.network(images, t.expand(3))
        # with the noise taken anew from the clipped estimate, as Glide does and we do
        images = theirs.step(predicted, t, images, use_clipped_model_output=True).prev_sample
    torch.testing.assert_close(model.sample_implicitly(3, 10, generator()), images, atol=1e-5, rtol=0)


def test_the_bound_meets_the_entropy_of_the_data_from_above():
    bound = exact(timesteps=1000, variance="beta").bound(gaussian_pictures(64), generator())
    entropy = 0.5 * math.log2(2 * math.pi * math.e * DEVIATION**2) - math.log2(2 / 255)
    assert entropy - 0.05 < bound.total.item() < entropy + 0.1
    assert bound.prior < 1e-3 and bound.transitions.shape == (999,) and (bound.transitions >= 0).all()


def test_a_wrong_network_pays_in_the_bound():
    model = exact(timesteps=50)
    right = model.bound(gaussian_pictures(16), generator()).total
    model.network.forward = lambda noisy, t: torch.zeros_like(noisy)
    assert model.bound(gaussian_pictures(16), generator()).total > right + 1


def test_the_decoder_gives_all_pixel_values_one_in_total():
    values = to_signed(torch.arange(256, dtype=torch.uint8))
    for mean, log_variance in ((0.3, -6.0), (-1.2, -2.0), (0.999, -9.0)):
        probabilities = pixel_log_likelihood(values, Gaussian(torch.tensor(mean), torch.tensor(log_variance))).exp()
        assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)


def test_the_divergence_is_that_of_torch():
    p_mean, q_mean, p_log, q_log = torch.randn(4, 6, generator=generator())
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(p_mean, (p_log / 2).exp()), normal(q_mean, (q_log / 2).exp()))
    torch.testing.assert_close(divergence(Gaussian(p_mean, p_log), Gaussian(q_mean, q_log)), expected)


def test_the_exact_network_has_the_least_loss():
    model, batch = exact(), gaussian_pictures(256)
    losses = []
    for factor in (0.8, 1.0, 1.25):
        exact_network = ExactNetwork(model.schedule)
        model.network.forward = lambda noisy, t, f=factor, network=exact_network: f * network(noisy, t)
        losses.append(model.loss(batch, generator()).item())
    assert losses[1] < min(losses[0], losses[2])


def test_training_lowers_the_loss():
    model, batch, draws = built(), gaussian_pictures(24), generator()
    optimiser = torch.optim.Adam(model.parameters(), lr=4e-3)
    losses = []
    for _ in range(25):
        loss = model.loss(batch, draws)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(1, abs=0.1)  # the last convolution starts at zero
    assert sum(losses[-5:]) / 5 < 0.7


@pytest.mark.parametrize("implicit_steps, steps", [(0, 30), (6, 6)])
def test_samples_are_pictures_and_progress_adds_up(implicit_steps, steps):
    model = built({"implicit-steps": implicit_steps})
    made = []
    samples = model.sample(3, generator(), made.append)
    assert samples.shape == (3, 1, 8, 8) and samples.dtype == torch.uint8
    assert sum(made) == model.sampling_steps == steps
    assert torch.equal(samples, model.sample(3, generator()))


def test_more_implicit_steps_than_steps_are_refused():
    with pytest.raises(ValueError, match="implicit_steps=31 must be between 0 and timesteps=30"):
        exact(timesteps=30, implicit_steps=31)


def test_eta_decides_how_much_noise_implicit_steps_add():
    quiet, noisy = (built({"implicit-steps": 6, "implicit-eta": eta}) for eta in (0.0, 1.0))
    expected = from_signed(noisy.sample_implicitly(2, 6, torch.Generator().manual_seed(0), eta=1.0))
    assert torch.equal(noisy.sample(2, torch.Generator().manual_seed(0)), expected)
    assert not torch.equal(quiet.sample(2, torch.Generator().manual_seed(0)), expected)
    with pytest.raises(ValueError, match=r"implicit_eta=1.5 must be between 0 and 1"):
        exact(timesteps=30, implicit_eta=1.5)
