"""Keeps prepared examples on disk: made once, their memory shared by many client processes.

Our choice: when an unfinished entry counts as abandoned.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from fmtda.domains.examples import Examples
from fmtda.domains.untrusted_files import status_of

ABANDONED_AFTER = 24 * 3600
"""After how many seconds without a write an unfinished entry is what a killed process left."""

UNFINISHED = ".unfinished-"
"""What the names of entries that are being written begin with."""


def cached(key: Mapping[str, object], build: Callable[[], Examples]) -> Examples:
    """Return the examples that `build` makes, out of the cache where they are there already.

    An entry is a folder with `inputs.npy`, `labels.npy` and, for people, `key.json`. It appears whole or not
    at all, so that processes may build the same entry at once; a damaged one is built anew. Where the cache
    cannot be written, the examples stay in memory and a warning says so.

    Parameters
    ----------
    key : mapping of str to JSON value
        All that the examples depend on. Must have the entries "family", "domain" and "part".
    build : callable
        Makes the examples; called only if they are not in the cache.

    Returns
    -------
    Examples
        Out of the cache their tensors are memory-mapped, copy on write: a process that changes them changes
        only its own.
    """
    entry = _entry(key)
    found = _read(entry)
    if found is not None:
        return found
    built = build()
    try:
        _write(entry, key, len(built), [built])
    except OSError as error:
        _warn_unwritable(entry, key, error)
        return built
    return _read(entry) or built


def cached_rows(key: Mapping[str, object], count: int, blocks: Callable[[], Iterable[Examples]]) -> Examples:
    """Do as `cached` for examples that are too many to hold in memory: they go to disk a block at a time.

    Processes that ask at once wait for the first to finish; should it die, the next one builds. Where the cache
    cannot be written, the examples are held in memory after all.

    Parameters
    ----------
    key : mapping of str to JSON value
        As for `cached`.
    count : int
        Number of examples, at least 1.
    blocks : callable
        Gives the examples in consecutive blocks, inputs and labels of any one shape and type. It may raise: then
        nothing is kept. It is called again if the cache turns out to be unwritable halfway.

    Returns
    -------
    Examples
        Memory-mapped, as from `cached`.

    Raises
    ------
    ValueError
        If the blocks hold more or fewer than `count` examples, or differ in shape or type.
    """
    entry = _entry(key)
    found = _read(entry)
    if found is not None:
        return found
    try:
        with _one_builder(entry):
            if _read(entry) is None:
                _write(entry, key, count, blocks())
        found = _read(entry)
        if found is not None:
            return found
    except OSError as error:
        _warn_unwritable(entry, key, error)
    return _in_memory(count, blocks())


def cache_root() -> Path:
    """Return the cache's folder: environment variable FMTDA_CACHE, else ~/.cache/fmtda."""
    return Path(os.environ.get("FMTDA_CACHE") or "~/.cache/fmtda").expanduser()


def fingerprint(files: Sequence[Path]) -> list[tuple[str, int, int]]:
    """List each file's name, size in bytes and time of change in nanoseconds, which tell when one was replaced.

    Raises
    ------
    DataError
        If one is not there any more, or may not be looked at.
    """
    statuses = [(file.name, status_of(file)) for file in files]
    return [(name, status.st_size, status.st_mtime_ns) for name, status in statuses]


def _entry(key: Mapping[str, object]) -> Path:
    """The folder of what has this key."""
    digest = hashlib.sha256(_text(key).encode()).hexdigest()[:16]
    return cache_root() / f"{key['family']}-{key['domain']}-{key['part']}-{digest}"


def _text(key: Mapping[str, object]) -> str:
    return json.dumps(key, sort_keys=True)


def _warn_unwritable(entry: Path, key: Mapping[str, object], error: OSError) -> None:
    warnings.warn(
        f"the cache {entry.parent} cannot be written ({error}), so {key['domain']!r} is prepared anew by "
        "each process; set FMTDA_CACHE to a writable folder",
        stacklevel=3,
    )


def _read(entry: Path) -> Examples | None:
    """The entry's examples; None if it is missing or damaged."""
    try:
        # "c" shares the pages between processes like "r" does, but torch warns of read-only memory.
        inputs = np.load(entry / "inputs.npy", mmap_mode="c")
        labels = np.load(entry / "labels.npy", mmap_mode="c")
        return Examples(torch.from_numpy(inputs), torch.from_numpy(labels))
    except (OSError, ValueError, EOFError, TypeError):
        return None


def _write(entry: Path, key: Mapping[str, object], count: int, blocks: Iterable[Examples]) -> None:
    """Write to a temporary folder beside the entry and rename it: nobody ever sees half an entry."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(entry.parent)
    unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=entry.parent))
    try:
        _write_arrays(unfinished, count, blocks)
        (unfinished / "key.json").write_text(_text(key) + "\n")
        if entry.exists() and _read(entry) is None:
            shutil.rmtree(entry, ignore_errors=True)
        try:
            unfinished.rename(entry)
        except OSError:
            if _read(entry) is None:
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _remove_abandoned(root: Path) -> None:
    for folder in root.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(OSError):  # its process may be renaming it
            if time.time() - max(path.stat().st_mtime for path in (folder, *folder.iterdir())) > ABANDONED_AFTER:
                shutil.rmtree(folder, ignore_errors=True)


def _write_arrays(folder: Path, count: int, blocks: Iterable[Examples]) -> None:
    with _RowFile(folder / "inputs.npy", count) as inputs, _RowFile(folder / "labels.npy", count) as labels:
        for block in blocks:
            inputs.append(block.inputs[:].numpy())
            labels.append(block.labels[:].numpy())


class _RowFile:
    """An array file (.npy) of known length, written a few rows at a time.

    Plain writes, not a memory map: on a full disk they raise OSError, where a map kills the process.
    """

    def __init__(self, path: Path, count: int) -> None:
        self._file = path.open("wb")
        self._count = count
        self._written = 0
        self._row: tuple[tuple[int, ...], np.dtype] | None = None

    def append(self, rows: np.ndarray) -> None:
        row = (rows.shape[1:], rows.dtype)
        if self._row is None:
            self._row = row
            descr = np.lib.format.dtype_to_descr(rows.dtype)
            header = {"descr": descr, "fortran_order": False, "shape": (self._count, *rows.shape[1:])}
            np.lib.format.write_array_header_1_0(self._file, header)
        if row != self._row:
            raise ValueError(f"rows of shape and type {row} follow rows of {self._row}")
        self._file.write(np.ascontiguousarray(rows).data)
        self._written += len(rows)

    def __enter__(self) -> _RowFile:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if error_type is None and self._written != self._count:
            raise ValueError(f"{self._written} rows came where {self._count} were announced")


def _in_memory(count: int, blocks: Iterable[Examples]) -> Examples:
    gathered = list(blocks)
    examples = Examples(*(torch.cat([getattr(block, name) for block in gathered]) for name in ("inputs", "labels")))
    if len(examples) != count:
        raise ValueError(f"{len(examples)} rows came where {count} were announced")
    return examples


@contextlib.contextmanager
def _one_builder(entry: Path) -> Iterator[None]:
    """Let one process at a time build an entry.

    The system takes the lock from a process that dies, so nobody waits for a dead one. Two builders at once, where
    a file system knows no locks, do no harm either.
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    lock = entry.with_name(f".lock-{entry.name}")
    with lock.open("w") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
