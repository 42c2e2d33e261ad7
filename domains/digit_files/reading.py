"""Reading a file that may be damaged: one error, which names the file, for whatever its reader raises."""

import io
import struct
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scipy.io.matlab import MatReadError

from domains.examples import DataError


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Whatever a damaged file makes its reader raise becomes one line with the file's name."""
    try:
        yield
    except DataError:
        raise
    except (  # SciPy raises NotImplementedError for MATLAB 7.3 files
        NotImplementedError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        struct.error,
        zlib.error,
        tarfile.TarError,
        MatReadError,
    ) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{file} is damaged or truncated ({reason}); get it anew") from error


def head(file: Path, count: int) -> bytes:
    """The first bytes."""
    with file.open("rb") as stream:
        return stream.read(count)


def tail(file: Path, count: int) -> bytes:
    """The last bytes."""
    with file.open("rb") as stream:
        stream.seek(-count, io.SEEK_END)
        return stream.read()
