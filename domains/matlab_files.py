"""Reads arrays of numbers or letters out of MATLAB files (.mat, up to version 7), with SciPy, after a look at sizes.

SciPy unpacks as much as there is and believes what a file says of sizes, so that both are looked at before.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from scipy.io import loadmat, whosmat
from scipy.io.matlab import matfile_version

from fmtda.domains.damaged_files import reading
from fmtda.domains.examples import DataError
from fmtda.domains.untrusted_files import most_unpacked, opened, size_of

BYTES = {"double": 8, "single": 4, "logical": 1, "char": 4} | {
    f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)
}
"""What a value takes in memory, by the classes that are read: no cells, structures, objects or sparse arrays."""

LONGEST_HEAD = 1024
"""Bytes of an array's shape, or of its name, at most; MATLAB's names have up to 63 letters."""

FILE_HEAD, COMPRESSED, PIECE = 128, 15, 2**16


def shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Read name and shape of each array that `arrays` reads; none is unpacked.

    Raises
    ------
    DataError
        If the file is damaged or of MATLAB 7.3, or if an array is larger than the file's size allows.
    """
    with reading(file), opened(file) as stream:
        for size, order in _compressed(stream, file):
            start = zlib.decompressobj().decompress(stream.read(min(size, PIECE)), 64 + 2 * LONGEST_HEAD)
            _check_head(start, order)
        found = {name: (shape, kind) for name, shape, kind in whosmat(stream) if kind in BYTES}
        for name, (shape, kind) in found.items():
            needed = math.prod(shape) * BYTES[kind]
            if min(shape, default=1) < 0 or needed > most_unpacked(size_of(stream)):
                raise ValueError(f"it announces {needed:,} bytes of {name}, and has {size_of(stream):,} itself")
        return {name: shape for name, (shape, _) in found.items()}


def arrays(file: Path, names: Sequence[str]) -> Mapping[str, np.ndarray]:
    """Read arrays by name.

    Raises
    ------
    DataError
        As `shapes`, and if one is missing, or the content unpacks to more than the file's size allows.
    """
    there = shapes(file)
    with reading(file), opened(file) as stream:
        left = most_unpacked(size_of(stream))
        for size, _ in _compressed(stream, file):
            for piece in _unpacked(stream, size):
                left -= len(piece)
                if left < 0:
                    raise ValueError("it unpacks to far more than its size")
        content = loadmat(stream, variable_names=names)
        for name in names:
            if name not in content or content[name].shape != there.get(name):
                raise ValueError(f"its {name} is no array of numbers")
        return content


def _compressed(stream: BinaryIO, file: Path) -> Iterator[tuple[int, str]]:
    """Go to each compressed element and tell its size and the order of its bytes; end at the file's start."""
    version, _ = matfile_version(stream)
    if version == 2:
        raise DataError(f"{file} is a MATLAB 7.3 file, which is not read; save it with MATLAB's option -v7, or as .npz")
    stream.seek(FILE_HEAD - 2)
    order = "<" if stream.read(2) == b"IM" else ">"
    place = FILE_HEAD
    while version == 1 and place < size_of(stream):
        stream.seek(place)
        kind, size = struct.unpack(f"{order}II", stream.read(8))
        if place + 8 + size > size_of(stream):
            raise ValueError("it ends within an array")
        if kind == COMPRESSED:
            yield size, order
        place += 8 + size
    stream.seek(0)


def _check_head(start: bytes, order: str) -> None:
    """Look at the sizes of an array's shape and name, which SciPy reads wherever they are said to end."""
    place = 8 + 16  # behind the array's own tag, and its flags
    for what in ("shape", "name"):
        kind, size = struct.unpack(f"{order}II", start[place : place + 8])
        if kind >> 16:  # up to four bytes stand in the tag itself
            size = 0
        if size > LONGEST_HEAD:
            raise ValueError(f"an array's {what} is said to take {size:,} bytes")
        place += 8 + -(-size // 8) * 8


def _unpacked(stream: BinaryIO, size: int) -> Iterator[bytes]:
    """What a compressed element holds, in small pieces."""
    unpacking = zlib.decompressobj()
    while size and not unpacking.eof:
        packed = stream.read(min(size, PIECE))
        size -= len(packed)
        while packed and not unpacking.eof:
            yield unpacking.decompress(packed, PIECE)
            packed = unpacking.unconsumed_tail
