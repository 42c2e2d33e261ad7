"""Finds and reads files of SMILES, one molecule a line, and accounts for every line that is left out."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np

from fmtda.domains.decoding import decoded
from fmtda.domains.examples import DataError
from fmtda.domains.untrusted_files import Unpacked, check_places, most_rows, opened, size_of
from fmtda.generative.molecules import GraphFormat, Reading, Refusals, read_many

FOLDER = "molecules"
"""Folder below the data folder that is looked into when the data folder itself does not hold the file."""

BLOCK = 250
"""Molecules that a worker converts at a time."""

LONGEST_LINE = 10_000
"""Characters of a line from which on it is no molecule; the longest of QM9 and ZINC-250k have about a hundred."""

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
        if os.path.exists(file):
            check_places([file], data_dir)
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
        with opened(file, may_be_empty=True) as packed, _text(file, packed) as stream:
            for number, line in enumerate(iter(partial(stream.readline, LONGEST_LINE), ""), 1):
                if number > most_rows(size_of(packed)):
                    raise ValueError(f"it has more than {number - 1:,} lines, for so small a file")
                if len(line) == LONGEST_LINE:
                    raise ValueError(f"line {number} has {LONGEST_LINE:,} characters and more")
                smiles = line.replace(",", " ").split(maxsplit=1)[:1]
                if smiles and not (number == 1 and smiles[0].lower() == "smiles"):
                    yield number, smiles[0]
    except DataError:
        raise
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{file} is damaged or no file of SMILES ({error}); get it anew") from error


def _text(file: Path, packed: BinaryIO) -> TextIO:
    if file.suffix != ".gz":
        return io.TextIOWrapper(packed, encoding="ascii")
    unpacked = io.BufferedReader(Unpacked(gzip.GzipFile(fileobj=packed), size_of(packed)), 2**16)
    return io.TextIOWrapper(unpacked, encoding="ascii")
