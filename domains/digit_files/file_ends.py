"""Reads the first and last bytes of a file, which show whether it is what it is called, and whole."""

import io
from pathlib import Path


def head(file: Path, count: int) -> bytes:
    """Read the first bytes."""
    with file.open("rb") as stream:
        return stream.read(count)


def tail(file: Path, count: int) -> bytes:
    """Read the last bytes."""
    with file.open("rb") as stream:
        stream.seek(-count, io.SEEK_END)
        return stream.read()
