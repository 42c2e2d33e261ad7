"""Photographs: crops inside the picture, views milder than the randomised source, nothing but the generator's draws."""

import torch

from fmtda.adaptation.augment_photographs import random_crop
from fmtda.adaptation.registry import AUGMENTATIONS

PHOTOGRAPHS = AUGMENTATIONS["photographs"]
LABELS = torch.arange(8) % 3


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def ramps(count, side=65):
    """Red tells a pixel's column, green its row, as 3 grey levels a pixel."""
    steps = (3 * torch.arange(side)).to(torch.uint8)
    picture = torch.stack([steps.expand(side, side), steps[:, None].expand(side, side), torch.zeros(side, side)])
    return picture.to(torch.uint8).expand(count, -1, -1, -1)


def photographs(count=8):
    return torch.randint(0, 256, (count, 3, 40, 56), dtype=torch.uint8, generator=generator(9))


def test_crops_keep_half_of_the_area_and_a_ratio_of_four_to_three_at_most():
    crops = random_crop(ramps(500), generator(), smallest_area=0.5).float() / 3
    # Steps from pixel to pixel around the centre are the crop's extents.
    width = (crops[:, 0, 32, 48] - crops[:, 0, 32, 16]) / 32
    height = (crops[:, 1, 48, 32] - crops[:, 1, 16, 32]) / 32
    area, ratio = width.abs() * height, width.abs() / height
    assert area.min() > 0.5 * 0.85  # crops beyond the picture are cut back to it
    assert width.abs().max() < 1.02 and height.max() < 1.02 and height.min() > 0.55
    assert 0.72 < ratio.min() < 0.8 and 1.25 < ratio.max() < 1.38
    assert 0.4 < (width < 0).float().mean() < 0.6  # mirrored
    assert crops[:, 0, 32, 32].std() > 2 and crops[:, 1, 32, 32].std() > 2  # centres move


def test_randomised_photographs_keep_shape_type_and_labels():
    images, labels = PHOTOGRAPHS.randomise(photographs(), LABELS, generator())
    assert images.shape == (8, 3, 40, 56) and images.dtype == torch.uint8
    assert torch.equal(labels, LABELS)


def test_views_are_milder_than_the_randomised_source():
    images = ramps(100)
    randomised, view = (
        PHOTOGRAPHS.randomise(images, torch.zeros(100), generator())[0],
        PHOTOGRAPHS.view(images, generator()),
    )
    assert view.shape == images.shape and view.dtype == torch.uint8
    # Whatever the crop, blue stays the darkest channel in a view; random convolutions give it light.
    assert (view[:, 2].flatten(1).float().mean(dim=1) < 30).all()
    assert (randomised[:, 2].flatten(1).float().mean(dim=1) > 60).any()


def test_equal_generators_give_equal_pictures_and_the_global_one_is_not_used():
    before = torch.get_rng_state()
    for change in (
        lambda seed: PHOTOGRAPHS.randomise(photographs(), LABELS, generator(seed))[0],
        lambda seed: PHOTOGRAPHS.view(photographs(), generator(seed)),
    ):
        assert torch.equal(change(1), change(1)) and not torch.equal(change(1), change(2))
    assert torch.equal(before, torch.get_rng_state())


def test_backgrounds_are_not_used():
    with_backgrounds, _ = PHOTOGRAPHS.randomise(photographs(), LABELS, generator(), photographs())
    assert torch.equal(with_backgrounds, PHOTOGRAPHS.randomise(photographs(), LABELS, generator())[0])


def test_inputs_are_prepared_as_all_pictures_are():
    inputs = PHOTOGRAPHS.prepare(photographs(), standardise=True)
    torch.testing.assert_close(inputs.mean(dim=(1, 2, 3)), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(PHOTOGRAPHS.prepare(photographs(), False), photographs().float() / 127.5 - 1)
