"""Turns whatever the reader of a damaged file raises into one error, which names the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fmtda.domains.examples import DataError


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turn whatever a damaged file makes its reader raise into one line with the file's name."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # a hostile file may make its reader stumble over anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{file} is damaged or truncated ({reason}); get it anew") from error
