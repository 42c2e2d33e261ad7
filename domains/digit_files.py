"""Finds, checks and reads MNIST, USPS, SVHN and MNIST-M in the layouts of their official distributions.

Copies may be partial or repacked: what counts is that a file is whole in itself, not its checksum.
"""

from __future__ import annotations

import bz2
import gzip
import io
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from scipy.io import loadmat, whosmat
from scipy.io.matlab import MatReadError
from sklearn.datasets import load_svmlight_file
from torch.nn import functional

from domains.examples import DataError, Examples
from domains.family import Part


def check(domain: str, data_dir: Path) -> None:
    """Look at the headers and sizes of a domain's files.

    Raises
    ------
    DataError
        If a file is missing, of another format, or truncated. Damage deep inside a compressed file shows only
        in `read`.
    """
    parts: tuple[Part, ...] = ("train", "test")
    for part in parts:
        LAYOUTS[domain].check(located(domain, part, data_dir))


def read(domain: str, part: Part, files: Sequence[Path]) -> Examples:
    """What the files that `located` has found hold, as uint8 (N, 3, 32, 32).

    Raises
    ------
    DataError
        If a file is damaged.
    """
    LAYOUTS[domain].check(files)
    return LAYOUTS[domain].read(files, part)


def located(domain: str, part: Part, data_dir: Path) -> list[Path]:
    """The files of one part of a domain.

    Raises
    ------
    DataError
        If one is missing; the message says which, and where it may lie.
    """
    layout = LAYOUTS[domain]
    found = []
    for alternatives in layout.names[part]:
        places = (data_dir / folder / name for folder in layout.folders for name in alternatives)
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            folders = ", ".join(str(data_dir / folder) for folder in layout.folders)
            raise DataError(
                f"domain {domain!r} has no file {' or '.join(alternatives)} in any of {folders}; "
                "copy it there or give another --data-dir"
            )
        found.append(file)
    return found


@dataclass(frozen=True)
class Layout:
    """How a data set is distributed.

    Attributes
    ----------
    folders : tuple of str
        Where its files may lie below the data folder: as torchvision lays them out, and directly.
    names : dict
        For each part the files it needs, each with its alternatives in order of preference.
    check, read : callable
        Take the files of one part, in the order of `names`; `read` also which part it is, as an archive holds
        both.
    """

    folders: tuple[str, ...]
    names: dict[Part, tuple[tuple[str, ...], ...]]
    check: Callable[[Sequence[Path]], None]
    read: Callable[[Sequence[Path], Part], Examples]


# --- MNIST: idx, packed by gzip or not ---


def _check_mnist(files: Sequence[Path]) -> None:
    images, labels = (_idx_shape(file) for file in files)
    if len(images) != 3 or images[1:] != (28, 28):
        raise DataError(f"{files[0]} holds an array of shape {images}; MNIST's pictures are (N, 28, 28)")
    if labels != images[:1]:
        raise DataError(f"{files[1]} holds labels of shape {labels} for the {images[0]} pictures in {files[0]}")


def _read_mnist(files: Sequence[Path], part: Part) -> Examples:
    images, labels = (_idx(file) for file in files)
    pictures = functional.pad(torch.from_numpy(images)[:, None], [2] * 4)
    return _examples(pictures.expand(-1, 3, -1, -1), labels, files[1])


def _idx_shape(file: Path) -> tuple[int, ...]:
    """The shape in the header, after a look whether the file is as long as that says."""
    with _reading(file), _unpacked(file) as stream:
        shape, start = _idx_header(stream)
    with _reading(file):
        if file.suffix == ".gz":
            size = int.from_bytes(_tail(file, 4), "little")
        else:
            size = file.stat().st_size
        if size != start + int(np.prod(shape)):
            raise ValueError(f"its header announces {start + int(np.prod(shape))} bytes, it has {size}")
    return shape


def _idx(file: Path) -> np.ndarray:
    with _reading(file), _unpacked(file) as stream:
        shape, _ = _idx_header(stream)
        return np.frombuffer(bytearray(stream.read()), dtype=np.uint8).reshape(shape)


def _idx_header(stream: BinaryIO) -> tuple[tuple[int, ...], int]:
    """Shape of the array and length of the header in bytes."""
    zeros, kind, axes = struct.unpack(">HBB", stream.read(4))
    if (zeros, kind) != (0, 8):
        raise ValueError("it is no idx file of bytes")
    return struct.unpack(f">{axes}I", stream.read(4 * axes)), 4 + 4 * axes


def _unpacked(file: Path) -> BinaryIO:
    return gzip.open(file) if file.suffix == ".gz" else file.open("rb")


# --- USPS: LIBSVM, packed by bzip2 ---

BZIP2_END = 0x177245385090


def _check_usps(files: Sequence[Path]) -> None:
    for file in files:
        with _reading(file):
            if _head(file, 3) != b"BZh":
                raise ValueError("it is no bzip2 file")
            # The mark of the end, 48 bits before a checksum of 32, need not start at a whole byte.
            tail = int.from_bytes(_tail(file, 11), "big")
            if not any((tail >> (32 + bit)) % 2**48 == BZIP2_END for bit in range(8)):
                raise ValueError("it stops before its end")


def _read_usps(files: Sequence[Path], part: Part) -> Examples:
    (file,) = files
    with _reading(file):
        pixels, labels = load_svmlight_file(io.BytesIO(bz2.decompress(file.read_bytes())), n_features=256)
    small = torch.from_numpy(pixels.toarray()).float().reshape(-1, 1, 16, 16)
    # As large as MNIST's pictures, with the same margin.
    pictures = functional.interpolate((small + 1) / 2 * 255, size=28, mode="bilinear", align_corners=False)
    pictures = functional.pad(pictures.clamp(0, 255).round().byte(), [2] * 4)
    return _examples(pictures.expand(-1, 3, -1, -1), labels - 1, file)


# --- SVHN: the cropped digits, MATLAB ---


def _check_svhn(files: Sequence[Path]) -> None:
    for file in files:
        with _reading(file):
            shapes = {name: shape for name, shape, _ in whosmat(file)}
            if not {"X", "y"} <= shapes.keys():
                raise ValueError(f"it holds {', '.join(shapes) or 'nothing whole'}, not X and y")
            if shapes["X"][:3] != (32, 32, 3) or int(np.prod(shapes["y"])) != shapes["X"][-1]:
                raise ValueError(f"X {shapes['X']} and y {shapes['y']} are not (32, 32, 3, N) and (N, 1)")


def _read_svhn(files: Sequence[Path], part: Part) -> Examples:
    (file,) = files
    with _reading(file):
        content = loadmat(file, variable_names=("X", "y"))
    pictures = torch.from_numpy(content["X"]).permute(3, 2, 0, 1)
    return _examples(pictures, content["y"].ravel() % 10, file)


# --- MNIST-M: Ganin's archive of pictures, or what it unpacks to ---


def _check_mnist_m(files: Sequence[Path]) -> None:
    (file,) = files
    if file.suffix == ".txt":
        listed = _listed(file)
        folder = _picture_folder(file)
        there = {path.name for path in folder.glob("*")}
        missing = sorted(listed.keys() - there)
        if missing:
            raise DataError(
                f"{file} lists {len(listed)} pictures, but {len(missing)} of them are not in {folder}, "
                f"{missing[0]} for one; unpack the archive anew"
            )
        return
    with _reading(file):
        if _head(file, 2) != b"\x1f\x8b":
            raise ValueError("it is no gzip file")
        # gzip ends with the length of its content, which is a multiple of 512 for a whole tar archive.
        length = int.from_bytes(_tail(file, 4), "little")
        if length == 0 or length % 512:
            raise ValueError("it stops before its end")


def _read_mnist_m(files: Sequence[Path], part: Part) -> Examples:
    (file,) = files
    if file.suffix != ".txt":
        return _read_archive(file, part)
    listed = _listed(file)
    folder = _picture_folder(file)
    pictures = {name: _picture(folder / name, (folder / name).read_bytes()) for name in listed}
    return _gathered(listed, pictures, file)


def _read_archive(file: Path, part: Part) -> Examples:
    listed, pictures = {}, {}
    with _reading(file), tarfile.open(file, "r|gz") as archive:
        for member in archive:
            path = Path(member.name)
            if path.name == f"mnist_m_{part}_labels.txt":
                listed = _parsed(archive.extractfile(member).read().decode())
            elif path.parent.name == f"mnist_m_{part}" and path.suffix == ".png":
                pictures[path.name] = _picture(path, archive.extractfile(member).read())
    return _gathered(listed, pictures, file)


def _gathered(listed: dict[str, int], pictures: dict[str, np.ndarray], file: Path) -> Examples:
    names = sorted(listed)
    missing = [name for name in names if name not in pictures]
    if missing or not names:
        raise DataError(
            f"{file} lists {len(names)} pictures for this part and holds {len(names) - len(missing)} of them; "
            "get it anew"
        )
    stacked = torch.from_numpy(np.stack([pictures[name] for name in names])).permute(0, 3, 1, 2)
    return _examples(stacked, np.array([listed[name] for name in names]), file)


def _picture(path: Path, content: bytes) -> np.ndarray:
    with _reading(path):
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        if pixels.shape != (32, 32, 3):
            raise ValueError(f"it has {pixels.shape[1]}x{pixels.shape[0]} pixels, not 32x32")
        return pixels


def _listed(file: Path) -> dict[str, int]:
    with _reading(file):
        return _parsed(file.read_text())


def _parsed(text: str) -> dict[str, int]:
    """Lines like "00000005.png 2": label by picture."""
    return {name: int(label) for name, label in (line.split() for line in text.splitlines() if line)}


def _picture_folder(label_file: Path) -> Path:
    return label_file.with_name(label_file.name.removesuffix("_labels.txt"))


# --- What all of them need ---


def _examples(pictures: torch.Tensor, labels: np.ndarray, file: Path) -> Examples:
    labels = torch.from_numpy(np.asarray(labels).astype(np.int64))
    if len(labels) == 0 or labels.min() < 0 or labels.max() > 9:
        raise DataError(f"{file} holds labels other than the ten digits, or none at all; get it anew")
    return Examples(pictures.contiguous(), labels)


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Whatever a damaged file makes its reader raise becomes one line with the file's name."""
    try:
        yield
    except DataError:
        raise
    except (  # SciPy raises NotImplementedError for MATLAB 7.3 files
        NotImplementedError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        struct.error,
        zlib.error,
        tarfile.TarError,
        MatReadError,
    ) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{file} is damaged or truncated ({reason}); get it anew") from error


def _head(file: Path, count: int) -> bytes:
    with file.open("rb") as stream:
        return stream.read(count)


def _tail(file: Path, count: int) -> bytes:
    with file.open("rb") as stream:
        stream.seek(-count, io.SEEK_END)
        return stream.read()


def _idx_names(part: str) -> tuple[tuple[str, ...], ...]:
    return tuple((name, f"{name}.gz") for name in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"))


LAYOUTS: dict[str, Layout] = {
    "mnist": Layout(
        folders=("MNIST/raw", "MNIST", "."),
        names={"train": _idx_names("train"), "test": _idx_names("t10k")},
        check=_check_mnist,
        read=_read_mnist,
    ),
    "usps": Layout(
        folders=("USPS", "."),
        names={"train": (("usps.bz2",),), "test": (("usps.t.bz2",),)},
        check=_check_usps,
        read=_read_usps,
    ),
    "svhn": Layout(
        folders=("SVHN", "."),
        names={"train": (("train_32x32.mat",),), "test": (("test_32x32.mat",),)},
        check=_check_svhn,
        read=_read_svhn,
    ),
    "mnist-m": Layout(
        folders=("mnist_m", "MNIST-M/mnist_m", "MNIST-M", "."),
        names={
            "train": (("mnist_m_train_labels.txt", "mnist_m.tar.gz"),),
            "test": (("mnist_m_test_labels.txt", "mnist_m.tar.gz"),),
        },
        check=_check_mnist_m,
        read=_read_mnist_m,
    ),
}
