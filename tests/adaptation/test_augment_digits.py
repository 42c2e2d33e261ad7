"""Network inputs and the randomised source: ranges, determinism, what each switch changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fmtda.adaptation.augment import mixup, prepare
from fmtda.adaptation.augment_digits import (
    VIEW_GAIN,
    VIEW_OFFSET,
    DigitAugmentation,
    Randomisation,
    cut_out,
    geometric_view,
    randomise,
    recoloured,
)

NOTHING = Randomisation(colour=False, polarity=False, texture=0.0, geometry=0.0, photographs=0.0, neighbours=0.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def strokes(count=32):
    """A light vertical bar on black, in another column in each picture."""
    images = torch.zeros(count, 3, 32, 32, dtype=torch.uint8)
    for number in range(count):
        column = 12 + number % 8
        images[number, :, 6:26, column : column + 3] = 255
    return images


def patches(count=8):
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator(9))


def test_plain_inputs_lie_between_minus_one_and_one():
    extremes = torch.tensor([0, 255], dtype=torch.uint8).repeat(3 * 4 * 2).reshape(1, 3, 4, 4)
    inputs = prepare(extremes, standardise=False)
    assert inputs.dtype == torch.float32
    assert sorted(inputs.unique().tolist()) == [-1.0, 1.0]


def test_standardised_pictures_have_zero_mean_and_unit_variance():
    inputs = prepare(patches(), standardise=True)
    torch.testing.assert_close(inputs.mean(dim=(1, 2, 3)), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(inputs.var(dim=(1, 2, 3), correction=0), torch.ones(8))


def test_standardisation_does_not_blow_up_flat_pictures():
    flat = torch.full((1, 3, 32, 32), 100, dtype=torch.uint8)
    flat[0, 0, 0, 0] = 101
    assert prepare(flat, standardise=True).abs().max() <= 0.25


def test_mixup_is_the_mean_of_two_draws():
    assert torch.equal(mixup(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 4.0])), torch.tensor([0.5, 3.0]))


def test_with_everything_off_the_source_stays_as_it_is():
    assert torch.equal(randomise(strokes(), generator(), NOTHING, patches()), strokes())


@pytest.mark.parametrize(
    "switch",
    [{"colour": True}, {"polarity": True}, {"texture": 0.2}, {"geometry": 1.0}],
    ids=lambda switch: next(iter(switch)),
)
def test_each_switch_alone_changes_the_source(switch):
    changed = randomise(strokes(), generator(), replace(NOTHING, **switch))
    assert changed.dtype == torch.uint8 and changed.shape == (32, 3, 32, 32)
    assert not torch.equal(changed, strokes())


@pytest.mark.parametrize("backgrounds", [None, patches()], ids=["plain", "photographs"])
def test_equal_generators_give_equal_pictures_and_the_global_one_is_not_used(backgrounds):
    before = torch.get_rng_state()
    first, same, other = (randomise(strokes(), generator(seed), Randomisation(), backgrounds) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_photographs_and_neighbours_act_only_with_backgrounds():
    settings = replace(NOTHING, photographs=1.0, neighbours=1.0)
    assert torch.equal(randomise(strokes(), generator(), settings), strokes())
    assert not torch.equal(randomise(strokes(), generator(), settings, patches()), strokes())


def test_on_a_photograph_a_digit_is_laid_on_or_subtracted():
    settings = replace(NOTHING, photographs=1.0)
    photograph = torch.full((1, 3, 32, 32), 70, dtype=torch.uint8)
    changed = randomise(strokes(), generator(), settings, photograph)
    light = strokes() == 255
    expected_subtracted = torch.where(light, 255 - photograph, photograph)
    expected_laid_on = torch.where(light, torch.full_like(photograph, 255), photograph)
    subtracted = (changed == expected_subtracted).flatten(1).all(dim=1)
    laid_on = (changed == expected_laid_on).flatten(1).all(dim=1)
    assert (subtracted | laid_on).all()
    assert subtracted.any() and laid_on.any()


def test_photographs_come_mirrored_and_with_their_colours_exchanged():
    photograph = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    photograph[:, 0, :, :16] = 90
    changed = randomise(torch.zeros_like(strokes()), generator(), replace(NOTHING, photographs=1.0), photograph)
    lit = {tuple(place) for place in (changed[:, :, 16, [5, 25]] == 90).nonzero()[:, 1:].tolist()}
    assert lit <= {(channel, side) for channel in range(3) for side in range(2)}
    assert len(lit) == 6


def test_neighbours_keep_the_digit_and_add_light_near_both_edges():
    changed = randomise(strokes(), generator(), replace(NOTHING, neighbours=1.0), patches())
    light = strokes() == 255
    assert (changed[light] == 255).all()
    added = (changed == 255) & ~light
    assert added[..., :8].any() and added[..., 24:].any()
    assert not added[..., 15:17].any()


def test_the_two_colours_keep_the_least_contrast():
    settings = replace(NOTHING, colour=True, polarity=True, least_contrast=0.3)
    grey = randomise(strokes(200), generator(), settings).float().mean(dim=1) / 255
    stroke, ground = grey[:, 10, 12:22].sort(dim=1).values[:, [0, -1]].unbind(dim=1)
    gap = (stroke - ground).abs()
    assert gap.min() > 0.15  # half of the push can be lost to the bounds of [0, 1]
    assert gap.median() > 0.3 - 1e-2


def test_without_polarity_light_stays_lighter():
    settings = replace(NOTHING, colour=True)
    light = strokes()[:, :1].expand(-1, 3, -1, -1) == 255
    for picture, where in zip(randomise(strokes(), generator(), settings).float(), light, strict=True):
        assert picture[where].mean() > picture[~where].mean()


def test_a_geometric_view_moves_the_digit_but_keeps_its_colours():
    images = strokes()
    view = geometric_view(images, generator())
    assert view.dtype == torch.uint8
    assert not torch.equal(view, images)
    mean_light = view.float().mean() / images.float().mean()
    assert 0.6 < mean_light < 1.6


def test_a_geometric_view_of_strength_zero_is_the_picture():
    assert torch.equal(geometric_view(strokes(), generator(), strength=0.0), strokes())


def test_a_view_differs_from_picture_to_picture_and_keeps_shape_and_dtype():
    pictures = strokes()
    view = DigitAugmentation().view(pictures, generator())
    assert view.shape == pictures.shape and view.dtype == torch.uint8
    assert torch.equal(view, DigitAugmentation().view(pictures, generator()))
    assert not torch.equal(view, DigitAugmentation().view(pictures, generator(1)))


def test_recolouring_is_one_line_of_grey_levels_a_channel():
    ramp = torch.arange(0, 256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(20, 3, -1, -1)
    changed = recoloured(ramp, generator()).float().flatten(2)
    inner = (changed > 0) & (changed < 255)
    for picture in range(20):
        for channel in range(3):
            kept = inner[picture, channel]
            x, y = torch.arange(256.0)[kept], changed[picture, channel][kept]
            slope, offset = np.polyfit(x.numpy(), y.numpy(), 1)
            assert 1 - VIEW_GAIN - 0.02 <= slope <= 1 + VIEW_GAIN + 0.02
            assert abs(offset) <= 255 * VIEW_OFFSET + 2
            assert (slope * x + offset - y).abs().max() < 1.1


def test_a_hole_has_the_mean_colour_and_nothing_else_changes():
    pictures = torch.randint(0, 200, (30, 3, 16, 16), generator=generator(), dtype=torch.uint8)
    pictures[:, :, 0, 0] = 255
    changed = cut_out(pictures, generator(1))
    different = (changed != pictures).any(dim=1)
    assert different.any(dim=(1, 2)).all()
    assert different.sum(dim=(1, 2)).max() <= 4 * 4  # a quarter of the side
    mean = pictures.float().mean(dim=(2, 3)).to(torch.uint8)
    for picture, where in enumerate(different):
        assert (changed[picture][:, where] == mean[picture][:, None]).all()
