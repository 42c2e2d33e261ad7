"""Finds, checks and reads MNIST, USPS, SVHN and MNIST-M in the layouts of their official distributions.

One file a data set. Copies may be partial or repacked: what counts is that a file is whole in itself, not its checksum.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from fmtda.domains.digit_files import mnist, mnist_m, svhn, usps
from fmtda.domains.digit_files.layout import FileLayout
from fmtda.domains.examples import DataError, Examples
from fmtda.domains.family import Part
from fmtda.domains.untrusted_files import check_places

LAYOUTS: dict[str, FileLayout] = {
    "mnist": mnist.LAYOUT,
    "usps": usps.LAYOUT,
    "svhn": svhn.LAYOUT,
    "mnist-m": mnist_m.LAYOUT,
}


def check(domain: str, data_dir: Path) -> None:
    """Look at the headers and sizes of a domain's files.

    Raises
    ------
    DataError
        If a file is missing, of another format, or truncated. Damage deep inside a compressed file shows only
        in `read`.
    """
    parts: tuple[Part, ...] = ("train", "test")
    for part in parts:
        LAYOUTS[domain].check(located(domain, part, data_dir))


def read(domain: str, part: Part, files: Sequence[Path]) -> Examples:
    """Read the files that `located` has found, as uint8 (N, 3, 32, 32).

    Raises
    ------
    DataError
        If a file is damaged.
    """
    LAYOUTS[domain].check(files)
    return LAYOUTS[domain].read(files, part)


def located(domain: str, part: Part, data_dir: Path) -> list[Path]:
    """Find the files of one part of a domain.

    Raises
    ------
    DataError
        If one is missing; the message says which, and where it may lie. If one is no regular file, or a link leads to
        it from elsewhere (`untrusted_files.check_places`).
    """
    layout = LAYOUTS[domain]
    found = []
    for alternatives in layout.names[part]:
        places = (data_dir / folder / name for folder in layout.folders for name in alternatives)
        # A folder is none: some unpack NAME.gz to NAME/NAME.
        file = next((place for place in places if os.path.exists(place) and not os.path.isdir(place)), None)
        if file is None:
            folders = ", ".join(str(data_dir / folder) for folder in layout.folders)
            raise DataError(
                f"domain {domain!r} has no file {' or '.join(alternatives)} in any of {folders}; "
                "copy it there or give another --data-dir"
            )
        found.append(file)
    check_places(found, data_dir)
    return found
