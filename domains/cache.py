"""Keeps prepared examples on disk: made once, their memory shared by many client processes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from domains.examples import Examples


def cached(key: Mapping[str, object], build: Callable[[], Examples]) -> Examples:
    """The examples that `build` makes, out of the cache where they are there already.

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
    text = json.dumps(key, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    entry = cache_root() / f"{key['family']}-{key['domain']}-{key['part']}-{digest}"

    found = _read(entry)
    if found is not None:
        return found
    built = build()
    try:
        _write(entry, built, text)
    except OSError as error:
        warnings.warn(
            f"the cache {entry.parent} cannot be written ({error}), so {key['domain']!r} is prepared anew by "
            "each process; set FMTDA_CACHE to a writable folder",
            stacklevel=2,
        )
        return built
    return _read(entry) or built


def cache_root() -> Path:
    """The cache's folder: environment variable FMTDA_CACHE, else ~/.cache/fmtda."""
    return Path(os.environ.get("FMTDA_CACHE") or "~/.cache/fmtda").expanduser()


def fingerprint(files: Sequence[Path]) -> list[tuple[str, int, int]]:
    """Each file's name, size in bytes and time of change in nanoseconds: tells when one was replaced."""
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def _read(entry: Path) -> Examples | None:
    """The entry's examples; None if it is missing or damaged."""
    try:
        # "c" shares the pages between processes like "r" does, but torch warns of read-only memory.
        inputs = np.load(entry / "inputs.npy", mmap_mode="c")
        labels = np.load(entry / "labels.npy", mmap_mode="c")
        return Examples(torch.from_numpy(inputs), torch.from_numpy(labels))
    except (OSError, ValueError, EOFError, TypeError):
        return None


def _write(entry: Path, examples: Examples, key: str) -> None:
    """Write to a temporary folder beside the entry and rename it: nobody ever sees half an entry."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=entry.parent))
    try:
        np.save(unfinished / "inputs.npy", examples.inputs.numpy())
        np.save(unfinished / "labels.npy", examples.labels.numpy())
        (unfinished / "key.json").write_text(key + "\n")
        if entry.exists() and _read(entry) is None:
            shutil.rmtree(entry, ignore_errors=True)
        try:
            unfinished.rename(entry)
        except OSError:
            if _read(entry) is None:
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
