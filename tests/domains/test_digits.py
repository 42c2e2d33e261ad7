"""The embedded digits: sizes, determinism, and that nothing is in two places."""

import itertools

import numpy as np
import pytest
import torch

from fmtda.domains import background_patches, glyphs
from fmtda.domains.digits import Digits, handwriting
from fmtda.domains.examples import DataError, Examples
from fmtda.domains.family import DataSpec

SIZES = {
    "handwritten": (800, 100),
    "blend": (1000, 150),
    "fonts": (1000, 500),
    "street": (1000, 500),
    "pen": (1000, 149),
}


@pytest.fixture
def digits():
    return Digits()


@pytest.mark.parametrize("domain", SIZES)
def test_each_domain_has_two_parts_of_balanced_colour_pictures(digits, domain):
    for part, size in zip(("train", "test"), SIZES[domain], strict=True):
        examples = digits.load(domain, part, DataSpec(seed=0))
        assert examples.inputs.shape == (size, 3, 32, 32)
        assert examples.inputs.dtype == torch.uint8 and examples.labels.dtype == torch.int64
        counts = np.bincount(examples.labels.numpy(), minlength=10)
        assert len(counts) == 10 and counts.min() >= 0.9 * size / 10
        spread = examples.inputs.float().flatten(1).std(dim=1)
        assert spread.min() > 4, "a picture without anything on it"


def test_a_seed_fixes_every_picture_and_another_seed_changes_them(digits, cache_folder, monkeypatch):
    for domain in digits.domains:
        first = digits.load(domain, "test", DataSpec(seed=3))
        monkeypatch.setenv("FMTDA_CACHE", str(cache_folder / "second"))
        again = digits.load(domain, "test", DataSpec(seed=3))
        other = digits.load(domain, "test", DataSpec(seed=4))
        assert torch.equal(first.inputs, again.inputs) and torch.equal(first.labels, again.labels)
        assert not torch.equal(first.inputs, other.inputs)


def test_no_handwritten_digit_is_in_two_domains_or_parts():
    pieces = [
        handwriting(domain, part, seed=1)[0].flatten(1)
        for domain in ("handwritten", "blend", "pen")
        for part in ("train", "test")
    ]
    everything = torch.cat(pieces)
    assert [len(piece) for piece in pieces] == [800, 100, 300, 150, 298, 149]
    # scikit-learn's 1,797 digits are all different, so none has been used twice and none left out.
    assert len(torch.unique(everything, dim=0)) == 1797


def test_no_typeface_is_in_both_parts():
    train, test = ({file for files in glyphs.TYPEFACES[part].values() for file in files} for part in ("train", "test"))
    assert not train & test
    assert not glyphs.TYPEFACES["train"].keys() & glyphs.TYPEFACES["test"].keys()


@pytest.mark.parametrize("part", ["train", "test"])
def test_every_typeface_has_ten_different_digits_of_one_height(part):
    for file in (file for files in glyphs.TYPEFACES[part].values() for file in files):
        boxes = [glyphs._drawn("", digit, "", glyphs._font(file)) for digit in "0123456789"]
        heights = [box.getbbox()[3] - box.getbbox()[1] for box in boxes]
        assert len({box.tobytes() for box in boxes}) == 10, file
        assert min(heights) > 0.85 * glyphs.HEIGHT and max(heights) < 1.4 * glyphs.HEIGHT, file


def test_a_neighbour_is_drawn_beside_the_digit_and_leaves_it_in_the_middle():
    font = glyphs._font("DejaVuSans.ttf")
    alone, between = (np.asarray(glyphs._drawn(*text, font)) for text in (("", "3", ""), ("1", "3", "7")))
    middle = slice(glyphs.SIDE // 2 - 10, glyphs.SIDE // 2 + 10)
    assert np.abs(alone[:, middle].astype(int) - between[:, middle]).mean() < 10
    assert between[:, :20].any() and between[:, -20:].any()
    assert not alone[:, :20].any() and not alone[:, -20:].any()


def test_photograph_regions_share_no_stripe(monkeypatch):
    # Photographs whose red channel is the column and whose green one is the picture's number.
    columns = np.broadcast_to(np.linspace(0, 255, 640).astype(np.uint8)[None, :, None], (427, 640, 1))
    marked = [np.concatenate([columns, np.full_like(columns, n), columns], axis=2) for n in (0, 1)]
    monkeypatch.setattr(background_patches, "load_sample_images", lambda: type("Images", (), {"images": marked}))
    background_patches._stripes.cache_clear()
    seen = {}
    for region in background_patches.REGIONS:
        patches = background_patches.patches(400, 32, 0, region)
        assert patches.shape == (400, 3, 32, 32) and patches.dtype == torch.uint8
        for number in (0, 1):
            mine = patches[patches[:, 1, 0, 0] == number][:, 0]
            seen[region, number] = (int(mine.min()), int(mine.max()))
    background_patches._stripes.cache_clear()
    for number in (0, 1):
        spans = sorted(seen[region, number] for region in background_patches.REGIONS)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans)), spans


def test_patches_refuse_what_the_photographs_do_not_have():
    with pytest.raises(ValueError, match="size=400 must be at most 21"):
        background_patches.patches(1, 400, 0, "train")
    with pytest.raises(ValueError, match="must be one of source, train, test"):
        background_patches.patches(1, 32, 0, "valid")


def test_unknown_names_are_refused_with_those_allowed(digits):
    with pytest.raises(DataError, match="'svhn' is not in the family 'digits'; allowed: handwritten, blend"):
        digits.check(["blend", "svhn"], DataSpec())


def test_a_limit_draws_a_fixed_subset_in_order():
    examples = Examples(torch.arange(50)[:, None], torch.arange(50) % 10)
    some = examples.limited(20, seed=0)
    assert len(some) == 20 and torch.equal(some.inputs, examples.limited(20, seed=0).inputs)
    assert (some.inputs.flatten().diff() > 0).all()
    assert torch.equal(some.labels, some.inputs.flatten() % 10)
    assert not torch.equal(some.inputs, examples.limited(20, seed=1).inputs)
    assert len(examples.limited(0, seed=0)) == 50 == len(examples.limited(99, seed=0))


def test_examples_know_whether_they_are_labelled():
    inputs = torch.zeros(2, 1)
    assert Examples(inputs, torch.tensor([-1, 3])).labelled
    assert not Examples(inputs, torch.tensor([-1, -1])).labelled
    with pytest.raises(ValueError, match="must be one for each of 2 inputs"):
        Examples(inputs, torch.zeros(3, dtype=torch.int64))
