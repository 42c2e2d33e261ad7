"""NCSN: with the exact score of Gaussian pixels its samples have their distribution; objectives switch."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from fmtda.generative.langevin import geometric_levels
from fmtda.generative.ncsn import NCSN, OBJECTIVES, NCSNSettings, dequantised
from fmtda.generative.pixels import from_unit
from fmtda.generative.registry import build

MEAN, DEVIATION = 0.6, 0.1  # of every pixel, in [0, 1]
SMALL = {"image-size": 8, "width": 8, "noise-levels": 5, "sigma-max": 2.0, "sigma-min": 0.02, "langevin-steps": 3}


def model(**changes) -> NCSN:
    """A small model by its table of settings; changed values go by no range, so that the model's own checks are met."""
    table = NCSNSettings.validated(SMALL).model_copy(update=changes)
    return build("ncsn", SimpleNamespace(model=table), seed=0)


class ExactNetwork(nn.Module):
    """sigma times the score of pixels that are N(MEAN, DEVIATION^2) each."""

    def __init__(self, sigmas: list[float]):
        super().__init__()
        self.sigmas = torch.tensor(sigmas)

    def forward(self, scaled: Tensor, place: Tensor) -> Tensor:
        sigma = self.sigmas[(place * (len(self.sigmas) - 1) / 1000).round().long()].view(-1, 1, 1, 1)
        noisy = scaled * (sigma.square() + 0.25).sqrt() + 0.5
        return sigma * (MEAN - noisy) / (DEVIATION**2 + sigma**2)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian_pictures(count: int) -> Tensor:
    return from_unit(MEAN + DEVIATION * torch.randn(count, 1, 8, 8, generator=generator(5)))


def test_samples_have_the_distribution_of_the_data():
    sigmas = geometric_levels(2.0, 0.01, 40)
    samples = NCSN(ExactNetwork(sigmas), sigmas, (1, 8, 8), langevin_steps=10).sample(100, generator()).float() / 255
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert samples.std().item() == pytest.approx(DEVIATION, rel=0.1)


def test_the_exact_score_has_the_least_loss():
    sigmas = geometric_levels(2.0, 0.02, 5)
    ncsn = NCSN(ExactNetwork(sigmas), sigmas, (1, 8, 8), langevin_steps=3)
    exact_network, losses = ncsn.network.forward, []
    for factor in (0.8, 1.0, 1.25):
        ncsn.network.forward = lambda scaled, place, f=factor: f * exact_network(scaled, place)
        losses.append(ncsn.loss(gaussian_pictures(256), generator()).item())
    assert losses[1] < min(losses[0], losses[2])


def test_the_last_step_takes_the_noise_of_the_last_level_out():
    sigmas = geometric_levels(2.0, 0.2, 10)  # a last level that is seen
    deviations = [
        NCSN(ExactNetwork(sigmas), sigmas, (1, 8, 8), 10, denoise=denoise).sample(100, generator()).float().std() / 255
        for denoise in (False, True)
    ]
    noisy_deviation = (DEVIATION**2 + 0.2**2) ** 0.5
    assert deviations[0].item() == pytest.approx(noisy_deviation, rel=0.15)
    # the expected clean picture varies by the explained share: DEVIATION^2 / noisy_deviation
    assert deviations[1].item() == pytest.approx(DEVIATION**2 / noisy_deviation, rel=0.2)


def test_training_lowers_the_loss():
    ncsn, batch, draws = model(), gaussian_pictures(24), generator()
    optimiser = torch.optim.Adam(ncsn.parameters(), lr=4e-3)
    losses = []
    for _ in range(25):
        loss = ncsn.loss(batch, draws)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(0.5, abs=0.1)  # |z|^2 / 2 a dimension: the last convolution starts at zero
    assert sum(losses[-5:]) / 5 < 0.4


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_gives_gradients_and_samples(objective):
    ncsn = model(objective=objective, image_size=4)
    batch = torch.randint(0, 256, (4, 1, 4, 4), generator=generator(), dtype=torch.uint8)
    torch.nn.init.normal_(ncsn.network.unet.conv_out.weight, std=0.1, generator=generator())
    ncsn.loss(batch, generator()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in ncsn.parameters() if parameter.grad is not None)
    assert ncsn.network.unet.conv_in.weight.grad.any()
    made = []
    samples = ncsn.sample(2, generator(), made.append)
    assert samples.shape == (2, 1, 4, 4) and samples.dtype == torch.uint8
    assert sum(made) == ncsn.sampling_steps == (15 if objective == "noise-conditional" else 3)


def test_dequantised_values_stay_in_their_interval():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    values = dequantised(images, generator())
    assert torch.equal((values * 256).floor().to(torch.uint8), images)
    assert 0 <= values.min() and values.max() < 1 and not torch.equal(values * 256, images.float())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"objective": "contrastive"}, "objective='contrastive' is unknown; allowed are noise-conditional, denoising"),
        ({"langevin_steps": 0}, "langevin_steps=0 must be at least 1"),
        ({"langevin_step_size": -1.0}, "step_size=-1 must be positive, or 0"),
        ({"sigma_min": 3.0}, "noise levels from 2 to 3 must fall"),
    ],
)
def test_what_is_no_setting_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        model(**change)
