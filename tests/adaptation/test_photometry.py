"""Light, colour, blur and texture: each change is torchvision's with the same parameter; ranges, chances, seeds."""

from dataclasses import fields

import pytest
import torch
from torch.nn import functional

from fmtda.adaptation import photometry
from fmtda.adaptation.photometry import Photometry, change_photometry
from fmtda.adaptation.random_draws import Draws
from fmtda.protocol.runtime import repair_torchvision

EVERYTHING = Photometry(0.5, 0.5, 0.5, 0.2, 0.2, 0.5, 0.2, 0.05, 0.5, 1.5, 0.5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(count=4, height=20, width=30):
    """Smooth colourful pictures in [0, 1]."""
    coarse = torch.rand(count, 3, 5, 6, generator=generator(9))
    return functional.interpolate(coarse, size=(height, width), mode="bilinear")


def stored(count=4):
    return (pictures(count) * 255).round().to(torch.uint8)


@pytest.mark.parametrize(
    ("own", "published", "parameters"),
    [
        ("adjust_brightness", "adjust_brightness", [0.3, 1.0, 1.4, 2.0]),
        ("adjust_contrast", "adjust_contrast", [0.0, 0.4, 1.0, 1.9]),
        ("adjust_saturation", "adjust_saturation", [0.0, 0.4, 1.0, 1.9]),
        ("turn_hue", "adjust_hue", [-0.5, -0.17, 0.0, 0.3]),
    ],
)
def test_a_change_is_torchvisions_with_each_pictures_own_parameter(own, published, parameters):
    repair_torchvision()
    from torchvision.transforms.v2 import functional as transforms

    changed = getattr(photometry, own)(pictures(), torch.tensor(parameters).view(-1, 1, 1, 1))
    expected = [
        getattr(transforms, published)(image, value) for image, value in zip(pictures(), parameters, strict=True)
    ]
    torch.testing.assert_close(changed, torch.stack(expected), atol=2e-5, rtol=0)


def test_turning_the_hue_keeps_greys_and_a_third_of_a_turn_exchanges_the_channels():
    grey = torch.rand(1, 1, 4, 4, generator=generator()).expand(1, 3, 4, 4)
    turns = torch.full((1, 1, 1, 1), 1 / 3)
    torch.testing.assert_close(photometry.turn_hue(grey, turns), grey)
    torch.testing.assert_close(photometry.turn_hue(pictures(1), turns), pictures(1)[:, [2, 0, 1]])


def test_a_blur_is_torchvisions_gaussian():
    repair_torchvision()
    from torchvision.transforms.v2 import functional as transforms

    sigmas = [0.1, 0.8, 1.5, 3.0]
    changed = photometry.gaussian_blur(pictures(), torch.tensor(sigmas).view(-1, 1, 1, 1))
    side = 2 * photometry.BLUR_RADIUS + 1
    expected = [
        transforms.gaussian_blur(image, [side, side], [sigma, sigma])
        for image, sigma in zip(pictures(), sigmas, strict=True)
    ]
    torch.testing.assert_close(changed, torch.stack(expected), atol=1e-5, rtol=0)


def test_gamma_is_the_power_that_torchvision_takes():
    repair_torchvision()
    from torchvision.transforms.v2 import functional as transforms

    changed = change_photometry(stored(1), generator(1), Photometry(gamma=0.6)).float()
    gamma = Draws(generator(1), 1, torch.device("cpu")).uniform(-0.6, 0.6).exp().item()
    expected = transforms.adjust_gamma(stored(1).float() / 255, gamma) * 255
    assert abs(gamma - 1) > 0.05
    assert (changed - expected).abs().max() <= 0.5 + 1e-3


def test_a_random_convolution_by_hand():
    kernels = torch.zeros(2, 3, 3, 3, 3)
    kernels[0, 0, 2, 1, 1] = 1  # red becomes the old blue, green and blue become grey
    kernels[1, 1, 1, 1, 0] = -1  # green becomes the negative of its left neighbour
    images = pictures(2)
    changed = photometry.random_convolution(images, kernels, torch.tensor([0.0, 0.5]).view(-1, 1, 1, 1))
    torch.testing.assert_close(changed[0, 0], images[0, 2])
    torch.testing.assert_close(changed[0, 1:], torch.full((2, 20, 30), 0.5))
    left = torch.cat([images[1, 1, :, :1], images[1, 1, :, :-1]], dim=1)
    torch.testing.assert_close(changed[1, 1], (images[1, 1] + 1 - left) / 2)


def test_random_kernels_come_in_four_sizes_and_keep_the_mean_square():
    kernels = photometry._kernels(Draws(generator(), 4000, torch.device("cpu")))
    sides = (kernels != 0).any(dim=(1, 2, 3)).sum(dim=1)
    assert set(sides.tolist()) == {1, 3, 5, 7}
    for side in (1, 3, 5, 7):  # the expected gain of an output channel is the sum of its weights' variances
        gain = kernels[sides == side].square().sum(dim=(2, 3, 4)).mean()
        assert abs(gain - 1) < 0.1


def test_nothing_changes_with_everything_off():
    assert torch.equal(change_photometry(stored(), generator(), Photometry()), stored())


@pytest.mark.parametrize("part", [field.name for field in fields(Photometry) if field.name != "sigma"])
def test_each_part_alone_changes_pictures(part):
    changed = change_photometry(stored(8), generator(), Photometry(**{part: 0.5}))
    assert changed.dtype == torch.uint8 and changed.shape == stored(8).shape
    assert not torch.equal(changed, stored(8))


@pytest.mark.parametrize("part", ["greyscale", "blur", "texture"])
def test_a_chance_is_the_share_of_changed_pictures(part):
    images = stored(1).expand(400, -1, -1, -1)
    changed = change_photometry(images, generator(), Photometry(**{part: 0.3}))
    share = (changed != images).flatten(1).any(dim=1).float().mean()
    assert 0.2 < share < 0.4


def test_greyscale_leaves_no_colour():
    changed = change_photometry(stored(), generator(), Photometry(greyscale=1.0))
    assert (changed == changed[:, :1]).all()


def test_noise_has_a_standard_deviation_up_to_the_given_one():
    grey = torch.full((50, 3, 64, 64), 128, dtype=torch.uint8)
    deviations = change_photometry(grey, generator(), Photometry(noise=0.1)).float().std(dim=(1, 2, 3)) / 255
    assert 0.08 < deviations.max() < 0.105 and deviations.min() < 0.02


def test_equal_generators_give_equal_pictures_and_neither_input_nor_global_generator_changes():
    images, before = stored(), torch.get_rng_state()
    first, same, other = (change_photometry(images, generator(seed), EVERYTHING) for seed in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert torch.equal(images, stored())
    assert torch.equal(before, torch.get_rng_state())
