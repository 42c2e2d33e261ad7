"""Turns whatever the reader of a damaged file raises into one error, which names the file."""

import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scipy.io.matlab import MatReadError

from fmtda.domains.examples import DataError


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turn whatever a damaged file makes its reader raise into one line with the file's name."""
    try:
        yield
    except DataError:
        raise
    except NotImplementedError as error:  # SciPy's word for it
        raise DataError(
            f"{file} is a MATLAB 7.3 file, which is not read; save it with MATLAB's option -v7, or as .npz"
        ) from error
    except (
        OSError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        struct.error,
        zlib.error,
        tarfile.TarError,
        zipfile.BadZipFile,
        MatReadError,
    ) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{file} is damaged or truncated ({reason}); get it anew") from error
