"""Finds, checks and reads feature vectors: one file a domain, MATLAB (.mat) or NumPy (.npz)."""

from __future__ import annotations

import math
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmtda.domains import matlab_files
from fmtda.domains.damaged_files import reading
from fmtda.domains.examples import DataError
from fmtda.domains.untrusted_files import check_name, check_places, most_rows, most_unpacked, opened, size_of, status_of

FEATURES = ("features", "fts", "feas")
"""Names that the array of vectors may have, first found first."""

LABELS = ("labels", "label")
"""Names that the array of labels may have."""

FOLDER = "office_caltech_surf"
"""Folder below the data folder that is looked into when the data folder itself holds no such file."""

SURF = "_SURF_L10"
"""What the stems of Office-Caltech10's SURF files end with; it is no part of the domain's name."""

OFFICE_CALTECH10 = (
    "backpack",
    "touring-bike",
    "calculator",
    "head-phones",
    "computer-keyboard",
    "laptop-101",
    "computer-monitor",
    "computer-mouse",
    "coffee-mug",
    "video-projector",
)
"""The classes behind the labels 1 to 10 of the SURF files, which don't name them: Gong et al. 2012 ("Geodesic flow
kernel for unsupervised domain adaptation") list them in this order, and the numbers of examples a label are those that
Office-31 and Caltech-256 have of these classes."""


@dataclass(frozen=True)
class Header:
    """Holds what a file says of itself before its content is read.

    Attributes
    ----------
    features, labels : str or None
        The arrays' names; None for labels that are not there.
    count, size : int
        N vectors of D values.
    """

    features: str
    labels: str | None
    count: int
    size: int


def located(data_dir: Path | None) -> dict[str, Path]:
    """Find each domain's file, in the alphabetical order of the domains.

    Raises
    ------
    DataError
        If the folder is missing or holds no such file, or if two files are the same domain. If what is called as such
        a file is no regular one, or a link to it leads out of the folder (`untrusted_files.check_places`).
    """
    if data_dir is None:
        raise DataError("feature vectors are read from files: give the folder they lie in with --data-dir")
    if not os.path.isdir(data_dir):
        raise DataError(f"--data-dir {data_dir} is no folder; feature vectors are read from .mat or .npz files there")
    files = _candidates(data_dir) or _candidates(data_dir / FOLDER)
    if not files:
        raise DataError(
            f"--data-dir {data_dir} holds no .mat or .npz file, nor does {FOLDER} in it; one file a domain is needed"
        )
    check_places(files, data_dir)
    found: dict[str, Path] = {}
    for file in files:
        domain = file.stem.removesuffix(SURF)
        check_name(domain, file)
        if "," in domain:
            raise DataError(f"{file} has a comma in its name, which separates domains in settings; rename it")
        if domain in found:
            raise DataError(f"{found[domain]} and {file} are both the domain {domain!r}; leave one of them there")
        found[domain] = file
    return dict(sorted(found.items(), key=lambda item: item[0].casefold()))


def header(file: Path) -> Header:
    """Read names and shapes of the arrays in a file.

    Raises
    ------
    DataError
        If the file is damaged, is of MATLAB 7.3, or its arrays are not (N, D) with N labels.
    """
    shapes = _npz_shapes(file) if file.suffix == ".npz" else matlab_files.shapes(file)
    features = next((name for name in FEATURES if name in shapes), None)
    labels = next((name for name in LABELS if name in shapes), None)
    if features is None:
        raise DataError(
            f"{file} holds {', '.join(shapes) or 'no array'}; the vectors must be called {' or '.join(FEATURES)}"
        )
    if len(shapes[features]) != 2 or min(shapes[features]) < 1:
        raise DataError(f"{file} holds {features} of shape {shapes[features]}; (N, D) is needed, one row an example")
    count, size = shapes[features]
    if count > most_rows(packed := status_of(file).st_size):
        raise DataError(f"{file} announces {count:,} vectors, for {packed:,} bytes; get it anew")
    if labels is not None and math.prod(shapes[labels]) != count:
        raise DataError(f"{file} holds {labels} of shape {shapes[labels]} for {count} vectors; one for each is needed")
    return Header(features, labels, count, size)


def read_features(file: Path) -> np.ndarray:
    """Read the vectors, float32 (N, D).

    Raises
    ------
    DataError
        As `header`, and if a value is no number or not finite.
    """
    name = header(file).features
    values = _array(file, name)
    if values.dtype.kind not in "biuf":
        raise DataError(f"{file} holds {name} of type {values.dtype}; real numbers are needed")
    with np.errstate(over="ignore"):
        features = np.ascontiguousarray(values, dtype=np.float32)
    damaged = ~np.isfinite(features).all(axis=1)
    if damaged.any():
        raise DataError(
            f"{file}: {damaged.sum()} of {len(features)} vectors have values that are not finite in float32, "
            f"row {damaged.argmax()} for one; leave them out"
        )
    return features


def read_labels(file: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read the labels and the classes they point to.

    Returns
    -------
    labels : numpy.ndarray
        int64 (N,), each an index into `classes`; -1 where unknown: everywhere without an array of labels, and where a
        number in it is negative.
    classes : tuple of str
        Numbers in their order, words in the alphabet's; the ten well-known names for the SURF files.

    Raises
    ------
    DataError
        As `header`, and if labels are neither whole numbers nor words.
    """
    about = header(file)
    if about.labels is None:
        return np.full(about.count, -1), ()
    values = _array(file, about.labels).ravel()
    if values.dtype.kind == "f" and (values == np.round(values)).all():
        values = values.astype(np.int64)
    if values.dtype.kind not in "iuU":
        raise DataError(f"{file} holds {about.labels} of type {values.dtype}; whole numbers or words are needed")
    if file.stem.endswith(SURF):
        if values.dtype.kind == "U" or values.min() < 1 or values.max() > len(OFFICE_CALTECH10):
            raise DataError(f"{file} holds labels other than 1 to {len(OFFICE_CALTECH10)}; get it anew or rename it")
        return values.astype(np.int64) - 1, OFFICE_CALTECH10
    if values.dtype.kind == "U":
        values = np.char.strip(values)
    known = np.full(len(values), True) if values.dtype.kind == "U" else values >= 0
    distinct, codes = np.unique(values[known], return_inverse=True)
    classes = tuple(str(value) for value in distinct)
    unusable = [name for name in classes if not name or "," in name]
    if unusable:
        raise DataError(f"{file} has the class {unusable[0]!r}: names are not empty and have no comma; rename it")
    labels = np.full(len(values), -1)
    labels[known] = codes
    return labels, classes


def _candidates(folder: Path) -> list[Path]:
    """The files in a folder that may be domains; SURF's lists of picture numbers are none."""
    files = [file for file in folder.glob("*") if file.suffix in (".mat", ".npz")]
    return sorted(file for file in files if not file.stem.endswith(f"{SURF}_imgs"))


def _npz_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Shapes out of the headers, without unpacking the arrays."""
    shapes = {}
    with reading(file), opened(file) as packed, zipfile.ZipFile(packed) as archive:
        sizes = {member.filename: member.file_size for member in archive.infolist()}
        if sum(member.file_size for member in archive.infolist()) > most_unpacked(size_of(packed)):
            raise ValueError("it unpacks to far more than its size")
        if len({name.removesuffix(".npy") for name in sizes}) < len(archive.infolist()):
            raise ValueError("it holds an array twice")
        for member, size in sizes.items():
            with archive.open(member) as stream:
                version = np.lib.format.read_magic(stream)
                if version == (1, 0):
                    shape, _, kind = np.lib.format.read_array_header_1_0(stream)
                else:
                    shape, _, kind = np.lib.format.read_array_header_2_0(stream)
            if min(shape, default=1) < 0 or math.prod(shape) * kind.itemsize > size:
                raise ValueError(
                    f"it announces {math.prod(shape) * kind.itemsize:,} bytes of {member}, and has {size:,}"
                )
            shapes[member.removesuffix(".npy")] = shape
    return shapes


def _array(file: Path, name: str) -> np.ndarray:
    if file.suffix == ".mat":
        return matlab_files.arrays(file, (name,))[name]
    _npz_shapes(file)
    with reading(file), opened(file) as stream, np.load(stream, allow_pickle=False) as content:
        return content[name]
