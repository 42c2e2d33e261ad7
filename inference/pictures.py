"""Reads picture files as a model's inputs: finds them below folders, decodes a bounded few at a time.

Our choice: how many threads decode, how many files each takes at once, and how many batches are kept ahead.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fmtda.domains.decoding import decode_picture
from fmtda.domains.examples import DataError
from fmtda.domains.image_listing import ENDINGS
from fmtda.domains.picture_files import opened_picture
from fmtda.domains.registry import family
from fmtda.domains.scene_folders import decode_scene
from fmtda.domains.scene_layouts import SceneFiles
from fmtda.domains.untrusted_files import leads_out
from fmtda.protocol.settings import AdaptationSettings

AHEAD = 3
"""Batches that are decoded or waiting at once, so that memory stays flat."""

MOST_THREADS = 8
"""Threads that decode at most; Pillow lets go of Python's lock while it decodes and resizes."""

NO_TABLE = np.zeros(0, dtype=np.int64)
"""Of label ids, where a scene has no label map."""

CHUNK = 16
"""Files that a thread takes at once."""

Decode = Callable[[Path], np.ndarray]
"""From a file to uint8 (3, H, W); raises `DataError` for one that is damaged."""


@dataclass(frozen=True)
class Batch:
    """Holds consecutive files, decoded.

    Attributes
    ----------
    files : list of Path
        Those that could be read.
    inputs : Tensor
        uint8 (B, 3, H, W), theirs.
    unreadable : list of str
        What was wrong with each of the others; names the file.
    """

    files: list[Path]
    inputs: Tensor
    unreadable: list[str]

    def __len__(self) -> int:
        return len(self.files) + len(self.unreadable)


def found(given: Sequence[str | Path]) -> list[Path]:
    """Find the picture files that are named or lie below named folders, each once, those of a folder sorted.

    A link that is named itself is followed; below a folder, one to a file elsewhere is refused, and one to a folder is
    passed over: whoever may write into the folder shall not choose which other files are read.

    Raises
    ------
    DataError
        If a path isn't there, a folder has no picture, or a link leads out of it.
    """
    files: dict[Path, None] = {}
    for path in (Path(each).expanduser() for each in given):
        if os.path.isdir(path):
            below = sorted(
                Path(folder) / name
                for folder, _, names in os.walk(path)
                for name in names
                if name.lower().endswith(ENDINGS) and not name.startswith(".")
            )
            if not below:
                raise DataError(f"{path}: no picture in this folder or below it; expected are {', '.join(ENDINGS)}")
            for file in below:
                if os.path.islink(file) and leads_out(file, path):
                    raise DataError(
                        f"{file} is a link out of {path}, which is not followed; put there what it points to (cp -L), "
                        "or name that itself"
                    )
            files.update(dict.fromkeys(below))
        elif os.path.exists(path):
            files[path] = None
        else:
            raise DataError(f"{path}: no such file or folder")
    return list(files)


def decoder(settings: AdaptationSettings) -> Decode:
    """Return what decodes a picture for this run: cropped to the input shape, or stretched where labels are maps.

    Raises
    ------
    DataError
        If the run's inputs are no pictures.
    """
    if len(settings.shape) != 3:
        raise DataError(
            f"data.name={settings.data.name}: this run takes vectors of {settings.shape[0]} features, no "
            "pictures; call its model from Python, see docs/python.md"
        )
    _, height, width = settings.shape
    if family(settings.data.name).segmentation:
        return partial(_decode_scene, height=height, width=width)
    return partial(decode_picture, height=height, width=width)


def batches(files: Sequence[Path], decode: Decode, size: int) -> Iterator[Batch]:
    """Decode the files in order, by threads while the caller works; at most `AHEAD` batches are in memory."""
    threads = min(MOST_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, "fmtda-decode") as pool:
        waiting: deque[list[Future]] = deque()
        starts = iter(range(0, len(files), size))

        def begin() -> None:
            if (start := next(starts, None)) is not None:
                chosen = files[start : min(start + size, len(files))]
                chunks = (chosen[place : place + CHUNK] for place in range(0, len(chosen), CHUNK))
                waiting.append([pool.submit(_decoded, decode, chunk) for chunk in chunks])

        try:
            for _ in range(AHEAD):
                begin()
            while waiting:
                yield _batch([result for future in waiting.popleft() for result in future.result()])
                begin()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def read_all(files: Sequence[Path], settings: AdaptationSettings) -> tuple[Tensor, list[str]]:
    """Read all into memory, uint8 (N, 3, H, W), and say what was wrong with those that can't be read.

    Raises
    ------
    DataError
        If none can be read, or the run's inputs are no pictures.
    """
    gathered = list(batches(files, decoder(settings), 256))
    unreadable = [problem for batch in gathered for problem in batch.unreadable]
    if len(unreadable) == len(files):
        raise DataError(f"none of {len(files)} pictures can be read; {unreadable[0]}")
    return torch.cat([batch.inputs for batch in gathered if batch.files]), unreadable


def _decode_scene(file: Path, height: int, width: int) -> np.ndarray:
    return decode_scene(SceneFiles(file, None, "test"), table=NO_TABLE, height=height, width=width)[0]


def _decoded(decode: Decode, files: Sequence[Path]) -> list[tuple[Path, np.ndarray | str]]:
    results: list[tuple[Path, np.ndarray | str]] = []
    for file in files:
        try:
            results.append((file, decode(file)))
        except DataError as error:
            results.append((file, str(error)))
    return results


def _batch(results: list[tuple[Path, np.ndarray | str]]) -> Batch:
    good = [(file, pixels) for file, pixels in results if not isinstance(pixels, str)]
    unreadable = [problem for _, problem in results if isinstance(problem, str)]
    inputs = torch.from_numpy(np.stack([pixels for _, pixels in good])) if good else torch.empty(0)
    return Batch([file for file, _ in good], inputs, unreadable)


def original(file: Path) -> Image.Image:
    """Read the picture as it is stored, RGB; a turn by EXIF tags is left undone, as for the inputs of segmentation."""
    with opened_picture(file) as image:
        return image.convert("RGB")
