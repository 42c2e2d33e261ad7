"""Scenes: label maps follow their pictures, views leave the geometry alone, void stays void."""

import pytest
import torch

from fmtda.adaptation.augment_scenes import LARGEST_ZOOM, SMALLEST_ZOOM, random_zoom
from fmtda.adaptation.registry import AUGMENTATIONS

SCENES = AUGMENTATIONS["scenes"]
CLASSES = 5


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def scenes(count=16, dtype=torch.int64):
    """Blocks of eight pixels whose grey level is 50 times their label; one in six is void, of grey level 250."""
    labels = torch.randint(-1, CLASSES, (count, 4, 6), generator=generator(9))
    labels = labels.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)
    grey = torch.where(labels < 0, CLASSES, labels) * 50
    return grey[:, None].expand(-1, 3, -1, -1).to(torch.uint8), labels.to(dtype)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64])
def test_the_label_of_a_pixel_is_its_colours(dtype):
    images, labels = random_zoom(*scenes(dtype=dtype), generator())
    assert images.dtype == torch.uint8 and labels.dtype == dtype
    grey = images[:, 0].long()
    pure = (grey % 50 == 0) & (labels >= 0)  # between two blocks the colours mix, and labels don't
    shown = torch.where(grey == 50 * CLASSES, -1, grey // 50)
    assert pure.float().mean() > 0.4
    # A mixture can hit another block's grey level by chance, seldom.
    assert (shown[pure] == labels.long()[pure]).float().mean() > 0.99


def test_void_stays_void():
    images, labels = random_zoom(*scenes(), generator())
    void = images[:, 0] == 50 * CLASSES  # lighter than any mixture with another block
    assert void.float().mean() > 0.05
    assert (labels[void] == -1).all()


def test_beyond_the_picture_is_void():
    images, labels = scenes()
    _, zoomed = random_zoom(images, labels.clamp(min=0), generator())
    share = (zoomed == -1).flatten(1).float().mean(dim=1)
    assert (share == 0).any() and (share > 0.1).any()
    assert share.max() <= 1 - SMALLEST_ZOOM**2 + 0.05


def test_zooms_reach_from_the_smallest_to_the_largest_and_half_are_mirrored():
    steps = torch.arange(96).to(torch.uint8)
    images = (2 * steps).expand(300, 3, 64, 96)
    changed, labels = random_zoom(images, torch.zeros(300, 64, 96, dtype=torch.int64), generator())
    slope = (changed[:, 0, 32, 60].float() - changed[:, 0, 32, 36].float()) / 48
    zoom = 1 / slope.abs()
    assert SMALLEST_ZOOM * 0.97 < zoom.min() < 0.85 and 1.5 < zoom.max() < LARGEST_ZOOM * 1.05
    assert 0.4 < (slope < 0).float().mean() < 0.6
    assert labels.shape == (300, 64, 96)


def test_the_randomised_source_has_other_colours_on_the_zoomed_labels():
    images, labels = scenes()
    changed, moved = SCENES.randomise(images, labels, generator())
    zoomed, expected = random_zoom(images, labels, generator())
    assert torch.equal(moved, expected)
    assert changed.shape == images.shape and changed.dtype == torch.uint8
    assert not torch.equal(changed, zoomed)


def test_a_view_moves_no_pixel():
    images = torch.zeros(64, 3, 48, 64, dtype=torch.uint8)
    images[..., 24:, :32] = 200  # one light quarter
    view = SCENES.view(images, generator()).float().mean(dim=1)
    light = torch.zeros(48, 64, dtype=torch.bool)
    light[24:, :32] = True
    inside, outside = light.clone(), ~light
    inside[24:30], inside[:, 26:32] = False, False  # a blur reaches over the border
    outside[18:24], outside[:, 32:38] = False, False
    assert view.shape == (64, 48, 64)
    assert (view[:, inside].amin(dim=1) > view[:, outside].amax(dim=1)).all()
    assert not torch.equal(view, images.float().mean(dim=1))


def test_equal_generators_give_equal_scenes_and_the_global_one_is_not_used():
    before = torch.get_rng_state()
    (first, first_labels), (same, same_labels), (other, _) = (
        SCENES.randomise(*scenes(), generator(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, same) and torch.equal(first_labels, same_labels) and not torch.equal(first, other)
    assert torch.equal(SCENES.view(scenes()[0], generator()), SCENES.view(scenes()[0], generator()))
    assert torch.equal(before, torch.get_rng_state())


def test_inputs_are_prepared_as_all_pictures_are():
    inputs = SCENES.prepare(scenes()[0], standardise=True)
    torch.testing.assert_close(inputs.var(dim=(1, 2, 3), correction=0), torch.ones(16))
