"""The judge knows real digits, tells spoilt ones from them, and its distance is the closed form's."""

import pytest
import torch
from torch import Tensor, nn

from fmtda.domains.family import DataSpec
from fmtda.domains.registry import family
from fmtda.generative.image_quality import (
    PictureClassifier,
    _Features,
    frechet_distance,
    image_grid,
    judge,
    train_classifier,
)
from fmtda.generative.pixels import to_signed


def grey_digits(part: str) -> tuple[Tensor, Tensor]:
    """The handwritten digits in grey, 16x16."""
    examples = family("digits").load("handwritten", part, DataSpec())
    halved = nn.functional.avg_pool2d(examples.inputs[:, :1].float(), 2)
    return halved.round().byte(), examples.labels


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    return grey_digits("train")


@pytest.fixture(scope="module")
def classifier(digits) -> PictureClassifier:
    return train_classifier(*digits, classes=10, seed=0, steps=300)


def test_the_judge_knows_digits_that_it_has_not_seen(classifier):
    images, labels = grey_digits("test")
    with torch.no_grad():
        assert (classifier(to_signed(images)).argmax(dim=1) == labels).float().mean() > 0.9  # a tenth by chance
    assert judge(classifier, images, images).confident_share > 0.9


def test_class_shares_are_those_of_the_pictures(classifier, digits):
    images, labels = digits
    chosen = torch.cat([torch.nonzero(labels == label).flatten()[:count] for label, count in ((3, 60), (7, 20))])
    shares = judge(classifier, images, images[chosen]).class_shares
    assert shares.sum().item() == pytest.approx(1)
    assert shares[3].item() == pytest.approx(0.75, abs=0.03) and shares[7].item() == pytest.approx(0.25, abs=0.03)


def test_spoilt_digits_are_further_away_than_new_ones_and_less_sure(classifier, digits):
    images, _ = digits
    new, _ = grey_digits("test")
    draws = torch.Generator().manual_seed(0)
    noisy = (images + 25 * torch.randn(images.shape, generator=draws)).clamp(0, 255).byte()
    overlaid = ((images.float() + images.roll(1, 0)) / 2).byte()
    unspoilt = judge(classifier, images, new)
    for spoilt in (judge(classifier, images, noisy), judge(classifier, images, overlaid)):
        assert spoilt.frechet_distance > 3 * unspoilt.frechet_distance
        assert spoilt.confident_share < unspoilt.confident_share - 0.1


def test_a_missing_class_is_seen_in_the_distance(classifier, digits):
    images, labels = digits
    everything = frechet_distance(classifier, images, images[::2])
    assert frechet_distance(classifier, images, images[labels != 4]) > 2 * everything


def test_the_distance_is_the_closed_form_of_two_gaussians(classifier, digits):
    images = digits[0]
    real, generated = images[:300], images[300:600].roll(1, dims=3)
    with torch.no_grad():
        one, other = (_Features(classifier)(to_signed(part)).double() for part in (real, generated))
    product = one.T.cov() @ other.T.cov()
    root_trace = torch.linalg.eigvals(product).sqrt().real.sum()
    expected = (one.mean(0) - other.mean(0)).square().sum() + (one.T.cov() + other.T.cov()).trace() - 2 * root_trace
    assert frechet_distance(classifier, real, generated) == pytest.approx(expected.item(), rel=1e-3)


def test_equal_seeds_give_equal_judges_and_leave_the_global_generator_alone(digits):
    before = torch.get_rng_state()
    first, same, other = (train_classifier(*digits, 10, seed, steps=3).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])
    assert torch.equal(before, torch.get_rng_state())


def test_pictures_without_labels_are_left_out_and_none_at_all_is_refused(digits):
    images, labels = digits[0][:40], digits[1][:40].clone()
    labels[20:] = -1
    some, known_alone = train_classifier(images, labels, 10, 0, 2), train_classifier(images[:20], labels[:20], 10, 0, 2)
    assert torch.equal(some.head.weight, known_alone.head.weight)
    with pytest.raises(ValueError, match="0 labelled pictures of .16, 16. cannot train a judge"):
        train_classifier(images, torch.full((40,), -1), 10, 0)


def test_pictures_stand_side_by_side(digits):
    grid = image_grid(digits[0][:10], columns=4)
    assert grid.shape == (3, 3 * 17 + 1, 4 * 17 + 1) and grid.dtype == torch.uint8
    torch.testing.assert_close(grid[0, 1:17, 18:34], digits[0][1, 0])


def test_colour_pictures_of_other_sizes_are_judged_too():
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (80, 3, 32, 32), generator=draws, dtype=torch.uint8)
    colour = train_classifier(images, torch.arange(80) % 4, 4, 0, steps=4)
    quality = judge(colour, images[:40], images[40:])
    assert quality.class_shares.shape == (4,) and quality.frechet_distance >= 0
