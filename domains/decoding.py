"""Decodes many files a block at a time, in worker processes where that pays, and says how far it is."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset

from fmtda.domains.examples import DataError
from fmtda.domains.picture_files import opened_picture
from fmtda.protocol.printable import printable

Item = TypeVar("Item")
Decoded = TypeVar("Decoded")

BLOCK = 32
MOST_WORKERS = 8
# A worker imports for seconds before it decodes, and a core decodes about 60 MB of JPEG a second: below this many
# bytes one process alone is done sooner.
WORTH_WORKERS = 512 * 2**20
FIRST_LINE_AFTER = 2.0


def decoded(
    decode: Callable[[Item], Decoded], items: Sequence[Item], read_bytes: int, what: str
) -> Iterator[list[Decoded]]:
    """Yield what `decode` makes of each item, in order, in blocks of at most `BLOCK`; few blocks are in memory at once.

    When it takes longer than two seconds, lines on stderr say how far it is.

    Parameters
    ----------
    decode : callable
        Takes one item. A function of a module, or a `functools.partial` of one: workers import it.
    items : sequence
        Such as file names.
    read_bytes : int
        Size of all files together; decides whether worker processes are started. A process that may have no
        children (a daemonic one) decodes alone.
    what : str
        What is prepared, for the lines.

    Raises
    ------
    DataError
        As `decode` does.
    """
    workers = _workers(read_bytes)
    blocks = DataLoader(
        _Decoding(decode, items),
        batch_size=BLOCK,
        collate_fn=list,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,  # a fork would copy held locks of threads
        generator=torch.Generator(),  # leaves the global one alone
    )
    started, next_line, done = time.monotonic(), FIRST_LINE_AFTER, 0
    for block in blocks:
        for result in block:
            if isinstance(result, DataError):
                raise result
        yield block
        done += len(block)
        elapsed = time.monotonic() - started
        if elapsed > next_line:
            print(f"fmtda: preparing {printable(what)}: {done:,} of {len(items):,}", file=sys.stderr, flush=True)
            next_line = 2 * elapsed


def decode_picture(file: str | os.PathLike[str], height: int, width: int) -> np.ndarray:
    """Decode a picture file as RGB in a given size: turned upright by its EXIF tag, shrunk to cover the size, cropped.

    Parameters
    ----------
    file : path
        Of a format out of `picture_files.FORMATS`.
    height, width : int
        The picture keeps its aspect ratio; of what is beyond, the same is cut off on both sides.

    Returns
    -------
    numpy.ndarray
        uint8 (3, height, width), bilinear with antialiasing.

    Raises
    ------
    DataError
        If the file is damaged, no picture, or one that is too large, as `picture_files.opened_picture`.
    """
    with opened_picture(file) as image:
        twice = 2 * max(height, width)
        image.draft(None, (twice, twice))  # a JPEG much larger than that is shrunk while it is decoded
        ImageOps.exif_transpose(image, in_place=True)
        upright = image if image.mode == "RGB" else image.convert("RGB")
        fitted = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(fitted).transpose(2, 0, 1))


def _workers(read_bytes: int) -> int:
    cores = os.cpu_count() or 1
    if read_bytes < WORTH_WORKERS or cores == 1 or multiprocessing.current_process().daemon:
        return 0
    return min(cores, MOST_WORKERS)


class _Decoding(Dataset[Decoded | DataError], Generic[Item, Decoded]):
    """The items, each decoded when it is asked for; a DataError is handed over as a value.

    Raised in a worker, it would arrive wrapped in the worker's traceback.
    """

    def __init__(self, decode: Callable[[Item], Decoded], items: Sequence[Item]) -> None:
        self._decode = decode
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, place: int) -> Decoded | DataError:
        try:
            return self._decode(self._items[place])
        except DataError as error:
            return error
