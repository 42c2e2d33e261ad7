"""Pictures as examples: size and colour by hand-computed cases, grids that are read back, figures of quality."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from fmtda.generative.image_quality import train_classifier
from fmtda.generative.images import BLOCK, Images


def wanted(image_size, channels, classes=()):
    """What of a run's settings tells the form of its pictures."""
    model = SimpleNamespace(image_size=image_size, channels=channels)
    return SimpleNamespace(model=model, shape=(3, 32, 32), class_names=classes)


def test_a_pixel_is_the_mean_over_its_area():
    pictures = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    pictures[0, 1, :2, :2] = torch.tensor([[10, 20], [30, 41]])
    small = Images().examples(pictures, wanted(2, 3))
    assert small.dtype == torch.uint8
    assert small[0, 1].tolist() == [[25, 0], [0, 0]]  # 25.25
    assert small[0, 0].sum() == small[0, 2].sum() == 0


def test_grey_is_itus():
    primaries = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]], dtype=torch.uint8)
    pictures = primaries[:, :, None, None].expand(-1, -1, 4, 4)
    grey = Images().examples(pictures, wanted(4, 1))
    assert grey.shape == (4, 1, 4, 4)
    by_pillow = [Image.fromarray(p.permute(1, 2, 0).numpy()).convert("L").getpixel((0, 0)) for p in pictures]
    assert grey[:, 0, 0, 0].tolist() == by_pillow == [76, 150, 29, 90]


@pytest.mark.parametrize("count", [0, 1, BLOCK + 1])
def test_any_number_of_pictures_is_brought_to_size(count):
    assert Images().examples(torch.zeros(count, 3, 8, 8, dtype=torch.uint8), wanted(4, 1)).shape == (count, 1, 4, 4)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_holds_every_sample_at_its_place(channels, tmp_path):
    samples = torch.randint(
        0, 256, (5, channels, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    Images().write(samples, tmp_path / "grid.png", wanted(4, 3))
    grid = torch.from_numpy(np.array(Image.open(tmp_path / "grid.png")))
    assert grid.shape[:2] == (4 * (2 * 17 + 1), 4 * (3 * 17 + 1))
    small = grid[::4, ::4].permute(2, 0, 1)
    for place, sample in enumerate(samples):
        top, left = 1 + place // 3 * 17, 1 + place % 3 * 17
        assert torch.equal(small[:, top : top + 16, left : left + 16], sample.expand(3, -1, -1))
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_data_that_is_no_pictures_is_refused():
    Images().check(wanted(16, 1))
    with pytest.raises(ValueError, match="data.name=feature-vectors: its inputs are 800 and no pictures"):
        Images().check(SimpleNamespace(shape=(800,), data=SimpleNamespace(name="feature-vectors"), workload="ddpm"))


def test_real_pictures_are_of_better_quality_than_noise(monkeypatch):
    monkeypatch.setattr("fmtda.generative.images.train_classifier", partial(train_classifier, steps=60))
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 2
    bright = torch.where(labels == 1, 200, 40)[:, None, None, None]
    real = (bright + torch.randint(-20, 20, (80, 1, 8, 8), generator=draws)).byte()
    noise = torch.randint(0, 256, (40, 1, 8, 8), generator=draws, dtype=torch.uint8)
    settings = wanted(8, 1, ("dark", "bright"))
    judge = Images().judge(real, labels, settings, seed=0)
    good, bad = (judge(samples) for samples in (real[:40], noise))
    assert good["frechet_distance"] < bad["frechet_distance"]
    assert good["class_shares"] == pytest.approx([0.5, 0.5])
    assert good["confident_share"] == 1.0
    assert good["samples"] == 40
    with pytest.raises(ValueError, match="1 sample: a distance needs two at least"):
        judge(noise[:1])
