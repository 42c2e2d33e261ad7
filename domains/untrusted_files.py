"""Opens files that somebody else wrote: regular ones, out of the data folder alone, and never more of one than is sane.

Whoever may write into a data folder shall not thereby make the account that reads it read other files, wait for ever
or run out of memory.

Our choice: how much larger than a file its content may be once it is unpacked, and how long lists and labels may be.
"""

from __future__ import annotations

import io
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fmtda.domains.examples import DataError

SLACK, RATIO = 64 * 2**20, 64
"""What n bytes may unpack to: SLACK + RATIO * n bytes. The real sets need at most 58 n (Office-Caltech10's SURF files,
of which nearly all values are zero; docs/data.md); gzip and zlib reach 1,032 n, bzip2 a million."""

MOST_ROWS = 100_000
"""Examples that a file may hold beside one a byte; the real sets take eleven bytes (ZINC-250k) and more."""

LONGEST_LIST = 64 * 2**20
"""Bytes of a list of pictures or labels; DomainNet's longest has 5 MB."""

UNSHOWABLE = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode's categories of what domains and classes, which go into settings and reports, are not called."""

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextmanager
def opened(file: str | os.PathLike[str], most: int | None = None, may_be_empty: bool = False) -> Iterator[BinaryIO]:
    """Open a regular file for reading, and never wait for a pipe or touch a device.

    Parameters
    ----------
    file : path
        A link is followed: `check_places` is what looks where it leads.
    most : int, optional
        Bytes that the file may have.
    may_be_empty : bool

    Raises
    ------
    DataError
        If it is no regular file, larger than that, or may not be read.
    ValueError
        If it is empty, for `damaged_files.reading` and its like, inside of which this is used.
    """
    with _stream(os.fspath(file)) as stream:
        status = os.fstat(stream.fileno())
        _check_kind(os.fspath(file), status)
        if most is not None and status.st_size > most:
            raise DataError(
                f"{os.fspath(file)} has {_megabytes(status.st_size)} MB; at most {_megabytes(most)} are read of such a "
                "file: make it smaller, or remove it"
            )
        if status.st_size == 0 and not may_be_empty:
            raise ValueError("it is empty")
        yield stream


def text_of(file: Path, encoding: str | None = None, errors: str = "strict") -> str:
    """Read a list or other text of at most `LONGEST_LIST` bytes; an empty one is no error.

    Raises
    ------
    DataError
        As `opened`.
    UnicodeDecodeError
        If it is of another encoding.
    """
    with opened(file, LONGEST_LIST, may_be_empty=True) as stream, io.TextIOWrapper(stream, encoding, errors) as text:
        return text.read()


def check_places(files: Iterable[str | os.PathLike[str]], root: Path) -> None:
    """Refuse those that are no regular files, and those that a link leads out of the data folder.

    The data folder itself may be a link, and so may the folders in it, as domains lie on another disk often. What is
    in one of these stays in it, or in the data folder: neither a file nor a folder deeper down leads elsewhere.

    Parameters
    ----------
    files : iterable of path
        Below `root` by name.
    root : Path
        The data folder.

    Raises
    ------
    DataError
        Naming the first such file and what to do.
    """
    folders: set[str] = set()
    for file in files:
        path = os.fspath(file)
        folder = os.path.dirname(path)
        if folder not in folders:
            folders.add(folder)
            _check_inside(folder, root)
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                _check_inside(path, root)
                status = os.stat(path)
        except OSError as error:
            raise _unreadable(path, error) from error
        _check_kind(path, status)


def status_of(file: str | os.PathLike[str]) -> os.stat_result:
    """Look at a file's size and times, behind a link at those of what it points to.

    Raises
    ------
    DataError
        If it is not there, or may not be looked at.
    """
    try:
        return os.stat(file)
    except OSError as error:
        raise _unreadable(os.fspath(file), error) from error


def check_name(name: str, path: str | os.PathLike[str]) -> None:
    """Refuse the name of a domain or class that is not UTF-8 or has control characters; `path` is where it stands.

    Raises
    ------
    DataError
    """
    if any(unicodedata.category(each) in UNSHOWABLE for each in name):
        raise DataError(f"{os.fspath(path)} has a control character, or what is no UTF-8, in its name; rename it")


def leads_out(path: str | os.PathLike[str], *roots: str | os.PathLike[str]) -> bool:
    """Say whether links lead from a path to what is in none of these folders."""
    real = Path(os.path.realpath(path))
    return not any(real.is_relative_to(os.path.realpath(root)) for root in roots)


def most_unpacked(packed: int) -> int:
    """Return how many bytes a file of that many bytes may unpack to."""
    return SLACK + RATIO * packed


def most_rows(packed: int) -> int:
    """Return how many examples a file of that many bytes may hold."""
    return MOST_ROWS + packed


class Unpacked(io.RawIOBase):
    """The content of a packed file as a stream that ends with an error where it grows beyond `most_unpacked`.

    Parameters
    ----------
    stream : binary stream
        Unpacks while it is read, as `gzip.GzipFile` does.
    packed : int
        Size of the packed file in bytes.
    """

    def __init__(self, stream: io.BufferedIOBase, packed: int) -> None:
        self._stream = stream
        self._most = self._left = most_unpacked(packed)

    def readable(self) -> bool:
        """Say that this is for reading."""
        return True

    def readinto(self, buffer) -> int:
        """Read as `io.RawIOBase` does.

        Raises
        ------
        ValueError
            Where there is more than the file may unpack to.
        """
        count = self._stream.readinto(buffer)
        self._left -= count
        if self._left < 0:
            raise ValueError(f"it unpacks to more than {_megabytes(self._most)} MB, {RATIO} times its size and more")
        return count


def size_of(stream: BinaryIO) -> int:
    """Return the size in bytes of an opened file."""
    return os.fstat(stream.fileno()).st_size


def _stream(path: str) -> BinaryIO:
    try:
        _check_kind(path, os.stat(path))
        # Should a pipe stand there by now, this doesn't wait for its other end.
        return open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path} is not there, or a link to nothing; add or remove it")
    advice = (
        "give the account that runs this the right to read it" if isinstance(error, PermissionError) else "remove it"
    )
    return DataError(f"{path} can't be read ({error.strerror}); {advice}")


def _check_inside(path: str, root: Path) -> None:
    places = Path(path).relative_to(root).parts
    is_folder_in_root = len(places) == 1 and os.path.isdir(path)
    if not places or is_folder_in_root:
        return
    top = [root / places[0]] if len(places) > 1 else []
    if leads_out(path, root, *top):
        raise DataError(
            f"{path} is a link out of the data folder, or behind one, which is not followed; put there what it points "
            f"to (cp -L), or link {'all of ' + str(top[0]) if top else 'the whole data folder'} instead"
        )


def _check_kind(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise DataError(f"{path} is {kind} and no file; rename or remove it")


def _megabytes(count: int) -> str:
    return f"{count / 2**20:,.0f}" if count % 2**20 == 0 else f"{count / 2**20:,.1f}"
