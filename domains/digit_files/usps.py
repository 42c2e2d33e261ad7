"""Reads USPS, LIBSVM files packed by bzip2."""

import bz2
import io
from collections.abc import Sequence
from pathlib import Path

import torch
from sklearn.datasets import load_svmlight_file
from torch.nn import functional

from fmtda.domains.damaged_files import reading
from fmtda.domains.digit_files.file_ends import head, tail
from fmtda.domains.digit_files.layout import FileLayout, digits
from fmtda.domains.examples import Examples
from fmtda.domains.family import Part
from fmtda.domains.untrusted_files import Unpacked, most_unpacked, opened, size_of

VALUES_A_ROW = 16 * 16

BYTES_A_PICTURE = 12 * 2**10
"""That it takes while it is enlarged; its line in a file of the set takes 240, packed."""

BZIP2_END = 0x177245385090
"""Six bytes that end the stream."""


def _check(files: Sequence[Path]) -> None:
    for file in files:
        with reading(file):
            if head(file, 3) != b"BZh":
                raise ValueError("it is no bzip2 file")
            # The mark of the end, 48 bits before a checksum of 32, need not start at a whole byte.
            end = int.from_bytes(tail(file, 11), "big")
            if not any((end >> (32 + bit)) % 2**48 == BZIP2_END for bit in range(8)):
                raise ValueError("it stops before its end")


def _read(files: Sequence[Path], part: Part) -> Examples:
    (file,) = files
    with reading(file):
        with opened(file) as stream:
            packed = size_of(stream)
            text = io.BufferedReader(Unpacked(bz2.BZ2File(stream), packed)).read()
        if text.count(b"\n") * BYTES_A_PICTURE > most_unpacked(packed):
            raise ValueError("its lines are shorter than pictures are")
        pixels, labels = load_svmlight_file(io.BytesIO(text), n_features=VALUES_A_ROW)
    small = torch.from_numpy(pixels.toarray()).float().reshape(-1, 1, 16, 16)
    # As large as MNIST's pictures, with the same margin.
    pictures = functional.interpolate((small + 1) / 2 * 255, size=28, mode="bilinear", align_corners=False)
    pictures = functional.pad(pictures.clamp(0, 255).round().byte(), [2] * 4)
    return digits(pictures.expand(-1, 3, -1, -1), labels - 1, file)


LAYOUT = FileLayout(
    folders=("USPS", "."),
    names={"train": (("usps.bz2",),), "test": (("usps.t.bz2",),)},
    check=_check,
    read=_read,
)
