"""Decoding: pictures against torchvision, worker processes against none, damage by name."""

import multiprocessing

import numpy as np
import pytest
import torch
from PIL import Image

from fmtda.domains import decoding
from fmtda.domains.decoding import BLOCK, decode_picture, decoded
from fmtda.domains.examples import DataError


def noise(height, width):
    """Smooth noise: neighbouring pixels agree, as in photographs."""
    small = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def by_torchvision(image, height, width):
    """Resized to cover and cropped in the middle, for pictures of just the proportions that this is exact for."""
    from fmtda.protocol.runtime import repair_torchvision

    repair_torchvision()
    from torchvision.transforms import v2

    scale = max(height / image.height, width / image.width)
    size = [round(image.height * scale), round(image.width * scale)]
    steps = [v2.Resize(size, v2.InterpolationMode.BILINEAR, antialias=True), v2.CenterCrop([height, width])]
    return v2.Compose([*steps, v2.PILToTensor()])(image).numpy()


@pytest.mark.parametrize(
    ("shape", "size"),
    [((96, 96), (96, 96)), ((120, 120), (40, 40)), ((60, 120), (30, 30)), ((120, 60), (20, 40)), ((24, 48), (48, 48))],
    ids=["as it is", "shrunk", "wide", "high", "enlarged"],
)
def test_a_picture_covers_the_size_and_is_cropped_in_the_middle(tmp_path, shape, size):
    image = noise(*shape)
    image.save(tmp_path / "one.png")
    pixels = decode_picture(tmp_path / "one.png", *size)
    assert pixels.dtype == np.uint8 and pixels.shape == (3, *size)
    difference = np.abs(pixels.astype(int) - by_torchvision(image, *size))
    assert difference.max() <= 2, "other pixels than torchvision's Resize and CenterCrop"


def test_a_large_jpeg_shrunk_while_decoding_is_nearly_the_same(tmp_path):
    image = noise(960, 1280)
    image.save(tmp_path / "one.jpg", quality=95)
    with Image.open(tmp_path / "one.jpg") as reopened:
        expected = by_torchvision(reopened.convert("RGB"), 96, 96)
    difference = np.abs(decode_picture(tmp_path / "one.jpg", 96, 96).astype(int) - expected)
    assert difference.mean() < 1 and difference.max() <= 8


@pytest.mark.parametrize(
    ("orientation", "stored_by"),
    [(1, None), (3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90), (8, Image.Transpose.ROTATE_270)],
)
def test_the_exif_orientation_is_honoured(tmp_path, orientation, stored_by):
    upright = noise(48, 48)
    exif = Image.Exif()
    exif[0x0112] = orientation
    (upright if stored_by is None else upright.transpose(stored_by)).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(decode_picture(tmp_path / "turned.png", 48, 48), np.asarray(upright).transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    file = tmp_path / ("one.jpg" if mode == "CMYK" else "one.png")
    noise(32, 32).convert(mode).save(file)
    assert decode_picture(file, 16, 16).shape == (3, 16, 16)


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp", "webp"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_truncated_picture_is_named_in_one_line(tmp_path, ending, kept):
    file = tmp_path / f"one.{ending}"
    noise(32, 32).save(file)
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DataError, match=rf"one\.{ending} is damaged or no picture") as refused:
        decode_picture(file, 16, 16)
    assert "\n" not in str(refused.value)


def square(number):
    if number == 70:
        raise DataError("70 is damaged")
    return number**2, multiprocessing.parent_process() is not None


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_order_until_one_is_damaged(monkeypatch, workers):
    monkeypatch.setattr(decoding, "_workers", lambda read_bytes: workers)
    state = torch.random.get_rng_state()
    blocks = []
    with pytest.raises(DataError) as refused:
        blocks.extend(decoded(square, range(100), 0, "squares"))
    assert str(refused.value) == "70 is damaged"
    assert [result for block in blocks for result in block] == [(n**2, workers > 0) for n in range(2 * BLOCK)]
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator was used"


def test_the_last_block_may_be_shorter():
    assert [len(block) for block in decoded(abs, range(BLOCK + 7), 0, "numbers")] == [BLOCK, 7]


def test_workers_are_for_much_data_and_for_those_who_may_have_children(monkeypatch):
    monkeypatch.setattr(decoding.os, "cpu_count", lambda: 4)
    assert decoding._workers(decoding.WORTH_WORKERS) == 4
    assert decoding._workers(decoding.WORTH_WORKERS - 1) == 0
    monkeypatch.setattr(decoding.multiprocessing.current_process(), "_config", {"daemon": True})
    assert decoding._workers(decoding.WORTH_WORKERS) == 0


def test_lines_tell_how_far_it_is_when_it_takes_long(monkeypatch, capsys):
    monkeypatch.setattr(decoding, "FIRST_LINE_AFTER", 1e9)
    list(decoded(abs, range(BLOCK), 0, "numbers"))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(decoding, "FIRST_LINE_AFTER", 0.0)
    list(decoded(abs, range(BLOCK), 0, "numbers"))
    assert capsys.readouterr().err == f"fmtda: preparing numbers: {BLOCK} of {BLOCK}\n"
