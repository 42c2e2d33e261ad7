"""Reads MNIST, idx files packed by gzip or not."""

import gzip
import io
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch.nn import functional

from fmtda.domains.damaged_files import reading
from fmtda.domains.digit_files.file_ends import tail
from fmtda.domains.digit_files.layout import FileLayout, digits
from fmtda.domains.examples import DataError, Examples
from fmtda.domains.family import Part
from fmtda.domains.untrusted_files import Unpacked, most_unpacked, opened, size_of


def _check(files: Sequence[Path]) -> None:
    images, labels = (_idx_shape(file) for file in files)
    if len(images) != 3 or images[1:] != (28, 28):
        raise DataError(f"{files[0]} holds an array of shape {images}; MNIST's pictures are (N, 28, 28)")
    if labels != images[:1]:
        raise DataError(f"{files[1]} holds labels of shape {labels} for the {images[0]} pictures in {files[0]}")


def _read(files: Sequence[Path], part: Part) -> Examples:
    images, labels = (_idx(file) for file in files)
    pictures = functional.pad(torch.from_numpy(images)[:, None], [2] * 4)
    return digits(pictures.expand(-1, 3, -1, -1), labels, files[1])


def _idx_shape(file: Path) -> tuple[int, ...]:
    """The shape in the header, after a look whether the file is as long as that says."""
    with reading(file), opened(file) as packed:
        shape, start = _idx_header(_unpacked(file, packed))
        if file.suffix == ".gz":
            size = int.from_bytes(tail(file, 4), "little")
        else:
            size = size_of(packed)
        announced = start + math.prod(shape)
        if size != announced:
            raise ValueError(f"its header announces {announced} bytes, it has {size}")
        if size > most_unpacked(size_of(packed)):
            raise ValueError(f"its header announces {announced} bytes in {size_of(packed)}")
    return shape


def _idx(file: Path) -> np.ndarray:
    with reading(file), opened(file) as packed:
        stream = _unpacked(file, packed)
        shape, _ = _idx_header(stream)
        return np.frombuffer(bytearray(stream.read()), dtype=np.uint8).reshape(shape)


def _idx_header(stream: BinaryIO) -> tuple[tuple[int, ...], int]:
    """Shape of the array and length of the header in bytes."""
    zeros, kind, axes = struct.unpack(">HBB", stream.read(4))
    if (zeros, kind) != (0, 8):
        raise ValueError("it is no idx file of bytes")
    return struct.unpack(f">{axes}I", stream.read(4 * axes)), 4 + 4 * axes


def _unpacked(file: Path, packed: BinaryIO) -> BinaryIO:
    if file.suffix != ".gz":
        return packed
    return io.BufferedReader(Unpacked(gzip.GzipFile(fileobj=packed), size_of(packed)))


def _idx_names(part: str) -> tuple[tuple[str, ...], ...]:
    return tuple((name, f"{name}.gz") for name in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"))


LAYOUT = FileLayout(
    folders=("MNIST/raw", "MNIST", "."),
    names={"train": _idx_names("train"), "test": _idx_names("t10k")},
    check=_check,
    read=_read,
)
