"""Reads SVHN's cropped digits, MATLAB files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.io import loadmat, whosmat

from fmtda.domains.damaged_files import reading
from fmtda.domains.digit_files.layout import FileLayout, digits
from fmtda.domains.examples import Examples
from fmtda.domains.family import Part


def _check(files: Sequence[Path]) -> None:
    for file in files:
        with reading(file):
            shapes = {name: shape for name, shape, _ in whosmat(file)}
            if not {"X", "y"} <= shapes.keys():
                raise ValueError(f"it holds {', '.join(shapes) or 'nothing whole'}, not X and y")
            if shapes["X"][:3] != (32, 32, 3) or int(np.prod(shapes["y"])) != shapes["X"][-1]:
                raise ValueError(f"X {shapes['X']} and y {shapes['y']} are not (32, 32, 3, N) and (N, 1)")


def _read(files: Sequence[Path], part: Part) -> Examples:
    (file,) = files
    with reading(file):
        content = loadmat(file, variable_names=("X", "y"))
    pictures = torch.from_numpy(content["X"]).permute(3, 2, 0, 1)
    return digits(pictures, content["y"].ravel() % 10, file)


LAYOUT = FileLayout(
    folders=("SVHN", "."),
    names={"train": (("train_32x32.mat",),), "test": (("test_32x32.mat",),)},
    check=_check,
    read=_read,
)
