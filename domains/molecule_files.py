"""Finds and reads files of SMILES, one molecule a line, and accounts for every line that is left out."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TextIO

import numpy as np

from fmtda.domains.decoding import decoded
from fmtda.domains.examples import DataError
from fmtda.generative.molecules import GraphFormat, Reading, Refusals, read_many

FOLDER = "molecules"
"""Folder below the data folder that is looked into when the data folder itself does not hold the file."""

BLOCK = 250
"""Molecules that a worker converts at a time."""

AS_JPEG = 20_000
"""A SMILES takes as long as a JPEG of this many bytes, which is what `decoded` counts in."""


def located(name: str, data_dir: Path | None) -> Path:
    """Find the file of that name in the data folder.

    Raises
    ------
    DataError
        If it is missing, or does not begin as a file of SMILES.
    """
    if data_dir is None:
        raise DataError(f"molecules are read from {name}: give the folder it lies in with --data-dir")
    for file in (data_dir / name, data_dir / FOLDER / name):
        if file.is_file():
            next(lines(file), None)
            return file
    raise DataError(f"--data-dir {data_dir} holds no {name}, nor does {FOLDER} in it")


def read_file(file: Path, form: GraphFormat) -> tuple[list[Reading], Refusals]:
    """Read every molecule of a file that has a graph, in order, and account for the others.

    In worker processes where that pays; lines on stderr say how far it is.

    Raises
    ------
    DataError
        If the file is damaged, or nothing in it has a graph.
    """
    numbered = list(lines(file))
    blocks = [numbered[start : start + BLOCK] for start in range(0, len(numbered), BLOCK)]
    what = f"{file.name}, blocks of {BLOCK} molecules"
    readings, refusals = [], Refusals()
    for some in decoded(partial(read_many, form=form), blocks, AS_JPEG * len(numbered), what):
        for converted, refused in some:
            readings += converted
            refusals.add(refused)
    if not readings:
        raise DataError(f"{file} holds no molecule with a graph ({refusals}); one SMILES a line is needed")
    return readings, refusals


def scaffold_labels(readings: list[Reading]) -> np.ndarray:
    """Number the Bemis-Murcko scaffolds, int64 (N,): 0 for the most frequent one, and so on."""
    scaffolds, labels, counts = np.unique(
        [reading.scaffold for reading in readings], return_inverse=True, return_counts=True
    )
    ranks = np.empty(len(scaffolds), dtype=np.int64)
    ranks[np.argsort(-counts, kind="stable")] = np.arange(len(scaffolds))
    return ranks[labels]


def lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line numbers and SMILES: what stands before the first comma or blank; a first line ``smiles`` is a head."""
    try:
        with _opened(file) as stream:
            for number, line in enumerate(stream, 1):
                smiles = line.replace(",", " ").split(maxsplit=1)[:1]
                if smiles and not (number == 1 and smiles[0].lower() == "smiles"):
                    yield number, smiles[0]
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(f"{file} is damaged or no file of SMILES ({error}); get it anew") from error


def _opened(file: Path) -> TextIO:
    return gzip.open(file, "rt", encoding="ascii") if file.suffix == ".gz" else file.open(encoding="ascii")
