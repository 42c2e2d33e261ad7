"""Reads the first and last bytes of a file, which show whether it is what it is called, and whole."""

import io
from pathlib import Path

from fmtda.domains.untrusted_files import opened


def head(file: Path, count: int) -> bytes:
    """Read the first bytes."""
    with opened(file) as stream:
        return stream.read(count)


def tail(file: Path, count: int) -> bytes:
    """Read the last bytes."""
    with opened(file) as stream:
        stream.seek(-count, io.SEEK_END)
        return stream.read()
