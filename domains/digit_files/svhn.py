"""Reads SVHN's cropped digits, MATLAB files."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from fmtda.domains import matlab_files
from fmtda.domains.damaged_files import reading
from fmtda.domains.digit_files.layout import FileLayout, digits
from fmtda.domains.examples import Examples
from fmtda.domains.family import Part


def _check(files: Sequence[Path]) -> None:
    for file in files:
        with reading(file):
            shapes = matlab_files.shapes(file)
            if not {"X", "y"} <= shapes.keys():
                raise ValueError(f"it holds {', '.join(shapes) or 'nothing whole'}, not X and y")
            if shapes["X"][:3] != (32, 32, 3) or math.prod(shapes["y"]) != shapes["X"][-1]:
                raise ValueError(f"X {shapes['X']} and y {shapes['y']} are not (32, 32, 3, N) and (N, 1)")


def _read(files: Sequence[Path], part: Part) -> Examples:
    (file,) = files
    content = matlab_files.arrays(file, ("X", "y"))
    pictures = torch.from_numpy(content["X"]).permute(3, 2, 0, 1)
    return digits(pictures, content["y"].ravel() % 10, file)


LAYOUT = FileLayout(
    folders=("SVHN", "."),
    names={"train": (("train_32x32.mat",),), "test": (("test_32x32.mat",),)},
    check=_check,
    read=_read,
)
