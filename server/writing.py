"""What happens when the system refuses to write a part of a run: one error, with the cause and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

MAKE_ROOM = "make room or give the folder back its rights"


class WriteError(OSError):
    """A part of a run that can't be written; the message names it, its folder, the cause and what to do."""


@contextmanager
def writing(what: str, where: Path) -> Iterator[None]:
    """Whatever the system refuses in here becomes a `WriteError`.

    Parameters
    ----------
    what
        What is written, as in "the checkpoint of round 3".
    where
        The folder or file.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise WriteError(f"can't write {what} to {where}: {error}; {MAKE_ROOM}") from error
