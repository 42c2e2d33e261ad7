"""Crops of pictures and label maps: torchvision's on the same boxes, by hand where they leave the picture."""

import pytest
import torch

from fmtda.adaptation.geometry import crop_matrices, resample, resample_labels
from fmtda.protocol.runtime import repair_torchvision

HEIGHT, WIDTH = 24, 40


def pictures(count=3):
    return torch.randint(
        0, 256, (count, 3, HEIGHT, WIDTH), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def matrices(boxes, mirrored):
    """Of boxes (top, left, height, width) in pixels."""
    top, left, height, width = torch.tensor(boxes, dtype=torch.float32).unbind(dim=1)
    centres = torch.stack([(left + width / 2) / WIDTH, (top + height / 2) / HEIGHT], dim=1) * 2 - 1
    extents = torch.stack([width / WIDTH, height / HEIGHT], dim=1)
    return crop_matrices(centres, extents, torch.tensor(mirrored))


def test_crops_are_torchvisions_on_the_same_boxes():
    repair_torchvision()
    from torchvision.transforms.v2 import functional

    boxes = [(0, 0, HEIGHT, WIDTH), (3, 10, 16, 20), (8, 1, 15, 31)]
    changed = resample(pictures(), matrices(boxes, [False, True, False]))
    for picture, own, box, mirrored in zip(pictures(), changed, boxes, (False, True, False), strict=True):
        expected = functional.resized_crop(picture, *box, [HEIGHT, WIDTH], antialias=False)
        if mirrored:
            expected = functional.horizontal_flip(expected)
        # Torchvision repeats the crop's edge, ours reads the pixels beside it: the outermost two differ.
        difference = (own.int() - expected.int())[:, 2:-2, 2:-2].abs()
        assert difference.max() <= 1


def test_the_whole_box_is_the_picture_itself_or_its_mirror_image():
    whole = [(0, 0, HEIGHT, WIDTH)] * 3
    changed = resample(pictures(), matrices(whole, [False, True, False]))
    assert torch.equal(changed[::2], pictures()[::2])
    assert torch.equal(changed[1], pictures()[1].flip(2))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64])
def test_labels_are_the_nearest_pixels_and_void_stays_void(dtype):
    labels = torch.arange(HEIGHT * WIDTH).reshape(1, HEIGHT, WIDTH).remainder(100).to(dtype) - 1
    enlarged = resample_labels(labels, matrices([(4, 6, HEIGHT // 2, WIDTH // 2)], [False]))
    by_hand = labels[:, 4 : 4 + HEIGHT // 2, 6 : 6 + WIDTH // 2].repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert enlarged.dtype == dtype
    assert torch.equal(enlarged, by_hand)
    assert (enlarged == -1).any()


def test_beyond_the_picture_labels_are_void_and_the_edge_is_repeated():
    box = matrices([(0, -WIDTH, HEIGHT, 2 * WIDTH)], [False])  # the picture in the right half, nothing left of it
    labels = resample_labels(torch.full((1, HEIGHT, WIDTH), 7), box)
    assert (labels[..., : WIDTH // 2] == -1).all() and (labels[..., WIDTH // 2 :] == 7).all()
    half = resample(pictures(1), box)[..., : WIDTH // 2]
    assert (half[..., :-1] == pictures(1)[..., :1]).all()
