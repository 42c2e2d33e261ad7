"""Real digits: each official layout out of tiny files made here, whole and damaged; and the real files."""

import bz2
import gzip
import io
import struct
import tarfile
import time
import urllib.error

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from fmtda.domains.digit_five import DigitFive
from fmtda.domains.examples import DataError
from fmtda.domains.family import DataSpec

LABELS = np.array([5, 0, 9, 1, 0, 7], dtype=np.uint8)
FILES = ("mnist", "usps", "svhn", "mnist-m")


@pytest.fixture
def digit_five():
    return DigitFive()


def grey(side):
    return np.random.default_rng(side).integers(0, 256, (len(LABELS), side, side), dtype=np.uint8)


def coloured():
    return np.random.default_rng(3).integers(0, 256, (len(LABELS), 32, 32, 3), dtype=np.uint8)


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder, packed):
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "t10k"):
        for name, array in ((f"{part}-images-idx3-ubyte", grey(28)), (f"{part}-labels-idx1-ubyte", LABELS)):
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
            else:
                (folder / name).write_bytes(idx(array))


def write_usps(folder):
    folder.mkdir(parents=True, exist_ok=True)
    rows = (grey(16).reshape(len(LABELS), 256) / 127.5 - 1).tolist()
    lines = "\n".join(
        f"{label + 1} " + " ".join(f"{i + 1}:{value:.4f}" for i, value in enumerate(row))
        for label, row in zip(LABELS, rows, strict=True)
    )
    for name in ("usps.bz2", "usps.t.bz2"):
        (folder / name).write_bytes(bz2.compress(lines.encode()))


def write_svhn(folder):
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.where(LABELS == 0, 10, LABELS)[:, None]
    for part in ("train", "test"):
        content = {"X": coloured().transpose(1, 2, 3, 0), "y": labels}
        savemat(folder / f"{part}_32x32.mat", content, do_compression=True)


def mnist_m_files():
    files = {}
    for part in ("train", "test"):
        names = [f"{5 * i:08d}.png" for i in range(len(LABELS))]
        lines = "".join(f"{name} {label}\n" for name, label in zip(names, LABELS, strict=True))
        files[f"mnist_m/mnist_m_{part}_labels.txt"] = lines.encode()
        for name, picture in zip(names, coloured(), strict=True):
            png = io.BytesIO()
            Image.fromarray(picture).save(png, "PNG")
            files[f"mnist_m/mnist_m_{part}/{name}"] = png.getvalue()
    return files


def write_mnist_m(folder, packed):
    folder.mkdir(parents=True, exist_ok=True)
    if not packed:
        for name, content in mnist_m_files().items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return
    with tarfile.open(folder / "mnist_m.tar.gz", "w:gz") as archive:
        for name, content in mnist_m_files().items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


LAYOUTS = {
    "mnist packed": ("mnist", lambda folder: write_mnist(folder / "MNIST" / "raw", packed=True)),
    "mnist unpacked": ("mnist", lambda folder: write_mnist(folder / "MNIST" / "raw", packed=False)),
    "mnist in its folder": ("mnist", lambda folder: write_mnist(folder / "MNIST", packed=True)),
    "mnist direct": ("mnist", lambda folder: write_mnist(folder, packed=True)),
    "usps": ("usps", lambda folder: write_usps(folder / "USPS")),
    "usps direct": ("usps", write_usps),
    "svhn": ("svhn", lambda folder: write_svhn(folder / "SVHN")),
    "svhn direct": ("svhn", write_svhn),
    "mnist-m packed": ("mnist-m", lambda folder: write_mnist_m(folder, packed=True)),
    "mnist-m unpacked": ("mnist-m", lambda folder: write_mnist_m(folder, packed=False)),
    "mnist-m direct": ("mnist-m", lambda folder: write_mnist_m(folder.parent, packed=False)),
}


def data_folder(tmp_path, layout):
    """The layout's domain and the folder written, whose name lets it be the unpacked archive itself."""
    domain, write = LAYOUTS[layout]
    folder = tmp_path / "mnist_m"
    write(folder)
    return domain, folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_read(digit_five, tmp_path, layout):
    domain, folder = data_folder(tmp_path, layout)
    digit_five.check([domain], DataSpec(folder))
    for part in ("train", "test"):
        examples = digit_five.load(domain, part, DataSpec(folder))
        assert examples.inputs.shape == (6, 3, 32, 32) and examples.inputs.dtype == torch.uint8
        assert examples.labels.tolist() == LABELS.tolist()
        pixels = examples.inputs.numpy()
        if domain == "mnist":
            assert np.array_equal(pixels[:, 1, 2:30, 2:30], grey(28)) and not pixels[:, :, :2].any()
        elif domain == "usps":
            assert np.abs(pixels[:, 0, 2:30, 2:30].mean((1, 2)) - grey(16).mean((1, 2))).max() < 3
        else:
            assert np.array_equal(pixels.transpose(0, 2, 3, 1), coloured())


@pytest.mark.parametrize("domain", FILES)
@pytest.mark.parametrize("part", ["train", "test"])
def test_a_missing_file_is_named_with_its_places(digit_five, tmp_path, domain, part):
    write_mnist(tmp_path / "MNIST" / "raw", packed=True)
    write_usps(tmp_path / "USPS")
    write_svhn(tmp_path / "SVHN")
    write_mnist_m(tmp_path, packed=False)
    digit_five.check(FILES, DataSpec(tmp_path))
    name = {"mnist": "t10k" if part == "test" else "train", "usps": "usps.t" if part == "test" else "usps.b"}
    pattern = name.get(domain, f"{part}_32x32.mat" if domain == "svhn" else f"mnist_m_{part}_labels.txt")
    for file in tmp_path.rglob(f"{pattern}*"):
        file.unlink()
    with pytest.raises(DataError) as refused:
        digit_five.check([domain], DataSpec(tmp_path))
    assert f"domain '{domain}' has no file {pattern}" in str(refused.value) and str(tmp_path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if "direct" not in name and "folder" not in name])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.6, 0.98])
def test_a_truncated_file_is_named_and_leaves_no_cache(digit_five, tmp_path, cache_folder, layout, kept):
    domain, folder = data_folder(tmp_path, layout)
    endings = {
        "mnist": "train-images*",
        "usps": "usps.bz2",
        "svhn": "train*.mat",
        "mnist-m": "mnist_m.tar.gz",
    }
    files = list(folder.rglob(endings[domain])) or list(folder.rglob("mnist_m_train/*.png"))[:1]
    (damaged,) = files
    content = damaged.read_bytes()
    damaged.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DataError) as refused:
        digit_five.load(domain, "train", DataSpec(folder))
    assert damaged.name in str(refused.value) and "\n" not in str(refused.value)
    assert not cache_folder.exists()
    if damaged.suffix != ".png":
        with pytest.raises(DataError, match=damaged.name.replace(".", r"\.")):
            digit_five.check([domain], DataSpec(folder))


def test_a_file_of_another_format_is_refused(digit_five, tmp_path):
    for name in ("train-images-idx3-ubyte.gz", "usps.bz2", "train_32x32.mat", "mnist_m.tar.gz"):
        (tmp_path / name).write_bytes(b"<html>404 Not Found</html>" * 20)
    write_mnist(tmp_path / "whole", packed=True)
    (tmp_path / "whole" / "train-labels-idx1-ubyte.gz").rename(tmp_path / "train-labels-idx1-ubyte.gz")
    for domain in FILES:
        with pytest.raises(DataError, match="is damaged or truncated"):
            digit_five.check([domain], DataSpec(tmp_path))


def test_labels_that_do_not_fit_the_pictures_are_refused(digit_five, tmp_path):
    write_mnist(tmp_path, packed=False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(LABELS[:4]))
    with pytest.raises(DataError, match=r"labels of shape \(4,\) for the 6 pictures"):
        digit_five.check(["mnist"], DataSpec(tmp_path))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(LABELS + 10))
    with pytest.raises(DataError, match="labels other than the ten digits"):
        digit_five.load("mnist", "train", DataSpec(tmp_path))


def test_a_picture_missing_from_the_unpacked_folder_is_named(digit_five, tmp_path):
    write_mnist_m(tmp_path, packed=False)
    (tmp_path / "mnist_m" / "mnist_m_train" / "00000010.png").unlink()
    with pytest.raises(DataError, match="lists 6 pictures, but 1 of them are not in .*00000010.png"):
        digit_five.check(["mnist-m"], DataSpec(tmp_path))


def test_a_replaced_file_is_read_again(digit_five, tmp_path):
    write_svhn(tmp_path)
    before = digit_five.load("svhn", "train", DataSpec(tmp_path))
    content = {"X": 255 - coloured().transpose(1, 2, 3, 0), "y": LABELS[:, None]}
    savemat(tmp_path / "train_32x32.mat", content)
    after = digit_five.load("svhn", "train", DataSpec(tmp_path))
    assert torch.equal(after.inputs, 255 - before.inputs)


def test_no_data_folder_is_refused_unless_only_fonts_are_asked_for(digit_five, tmp_path):
    digit_five.check(["fonts"], DataSpec())
    with pytest.raises(DataError, match="'mnist' is read from files: give the folder they lie in with --data-dir"):
        digit_five.check(["fonts", "mnist"], DataSpec())
    with pytest.raises(DataError, match="absent is no folder"):
        digit_five.check(["mnist"], DataSpec(tmp_path / "absent"))


def test_fonts_are_rendered_without_files(digit_five):
    examples = digit_five.load("fonts", "test", DataSpec())
    assert examples.inputs.shape == (2000, 3, 32, 32)
    assert np.bincount(examples.labels.numpy()).tolist() == [200] * 10


def test_a_failed_download_is_one_line(digit_five, tmp_path, monkeypatch):
    from fmtda.protocol.runtime import repair_torchvision

    repair_torchvision()
    from torchvision import datasets

    def fail(*_, **__):
        raise urllib.error.URLError("tried one,\ntried two: no route to host")

    monkeypatch.setattr(datasets, "SVHN", fail)
    with pytest.raises(DataError, match="'svhn' could not be downloaded into .*no route to host.*check the network"):
        digit_five.fetch("svhn", tmp_path)
    with pytest.raises(DataError, match="'mnist-m' cannot be downloaded; allowed: mnist, usps, svhn"):
        digit_five.fetch("mnist-m", tmp_path)


def test_what_is_there_is_not_downloaded_again(digit_five, tmp_path):
    write_usps(tmp_path / "USPS")
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    digit_five.fetch("usps", tmp_path)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_the_real_files_pass_the_check_in_a_second(digit_five, real_data):
    start = time.process_time()
    digit_five.check(digit_five.domains, DataSpec(real_data))
    assert time.process_time() - start < 1


@pytest.mark.parametrize(("domain", "least"), [("mnist", 10_000), ("usps", 2007), ("svhn", 2000), ("mnist-m", 7000)])
def test_the_real_test_parts_are_read(digit_five, real_data, domain, least):
    examples = digit_five.load(domain, "test", DataSpec(real_data))
    assert len(examples) >= least and examples.inputs.shape[1:] == (3, 32, 32)
    # Zeros are round and ones are upright: with the labels off by one, ones would not be the brighter middle
    # column.
    if domain in ("mnist", "usps"):
        middle = examples.inputs[:, 0, 10:22, 15:17].float().mean((1, 2))
        assert middle[examples.labels == 1].mean() > middle[examples.labels == 0].mean() + 50
