"""Opens picture files that somebody else wrote; nothing else in this project opens one.

Our choice: how many pixels, bytes, reads and scans are allowed.
"""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import BinaryIO, cast

from PIL import Image

from fmtda.domains.examples import DataError
from fmtda.domains.untrusted_files import opened

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
"""Known by content, not by name. Pillow would read forty more, some of them by programs of others (EPS)."""

MOST_PIXELS = 64_000_000
"""More than a telephone's 50 million; Cityscapes' pictures have 2 million. Decoded they take 256 MB, 512 with alpha."""

LONGEST_SIDE = 65_535
"""As JPEG's format allows. To stretch a line of 64 million pixels takes a gigabyte of weights."""

FEWER_PIXELS = {"WEBP": 32_000_000, "BMP packed by RLE": 4_000_000}
"""WebP's reader takes 15 bytes a pixel where the others take 4 to 8; RLE is unpacked in Python, 4 million in 0.9 s."""

ALONE_FROM = 16_000_000
"""Pixels from which a thread waits until no other one of the process decodes so large a picture."""

MOST_BYTES = 256 * 2**20
"""As many as `MOST_PIXELS` take unpacked."""

HEAD_BYTES = 16 * 2**20
"""Texts, profiles, thumbnails before the pixels. Pillow holds them three times."""

READS, BYTES_A_READ = 100_000, 64
"""A file of n bytes is read in at most READS + n / BYTES_A_READ pieces: a million empty chunks cost seconds."""

MOST_SCANS = 64
"""Of a JPEG; encoders write up to about 15. Each costs time for all of the picture, and need have ten bytes."""

_LARGE = threading.Lock()

_MARKER = re.compile(rb"\xff+([\x02-\xcf\xd8-\xfe])")
"""Of JPEG, less those without a length; in packed data 0xff is followed by zero or one of the latter."""


@contextmanager
def opened_picture(file: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Open a picture file, after a look at its head; it is not decoded yet.

    Whatever a damaged file makes Pillow raise within the block becomes one line with the file's name.

    Raises
    ------
    DataError
        If the file is no regular file, may not be read, is damaged, of no format out of `FORMATS`, or has more pixels
        or bytes than are read.
    """
    with damage_named(file), opened(file, MOST_BYTES) as stream, _picture(stream, os.fspath(file)) as image:
        # JPEGs are shrunk while they are decoded.
        large = image.width * image.height >= ALONE_FROM and image.format not in ("JPEG", "MPO")
        with _LARGE if large else nullcontext():
            yield image


@contextmanager
def picture_in(content: bytes, name: str) -> Iterator[Image.Image]:
    """Do as `opened_picture` for the content of a file, which came out of an archive."""
    with damage_named(name), _picture(io.BytesIO(content), name) as image:
        yield image


@contextmanager
def damage_named(file: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever a damaged picture makes Pillow raise into one line with the file's name."""
    try:
        yield
    except DataError:
        raise
    except Image.UnidentifiedImageError as error:
        allowed = ", ".join(FORMATS)
        raise DataError(
            f"{os.fspath(file)} is damaged or no picture (none of {allowed} by its content); replace or remove it"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # from 179 million on, or 89
        pixels = max(map(int, re.findall(r"\d+", str(error))))
        raise DataError(f"{os.fspath(file)} has {pixels:,} pixels; {_advice(MOST_PIXELS)}") from error
    except Exception as error:  # a hostile head may make Pillow stumble over anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{os.fspath(file)} is damaged or no picture ({reason}); replace or remove it") from error


def _picture(stream: BinaryIO, name: str) -> Image.Image:
    """The picture, not decoded, where its head promises one that is read here."""
    size = stream.seek(0, os.SEEK_END)
    metered = _Metered(stream, READS + size // BYTES_A_READ)
    image = Image.open(cast(BinaryIO, metered), formats=FORMATS)
    kind = "BMP packed by RLE" if image.tile and image.tile[0][0] == "bmp_rle" else image.format
    _check_size(image, kind or "", name)
    if image.format in ("JPEG", "MPO"):
        _check_scans(stream, name)
    metered.head = False
    metered.pieces = kind != "BMP packed by RLE"
    return image


def _check_size(image: Image.Image, kind: str, name: str) -> None:
    if not image.width * image.height:
        raise ValueError("it has no pixel")
    if max(image.size) > LONGEST_SIDE:
        raise DataError(
            f"{name} is {max(image.size):,} pixels long; at most {LONGEST_SIDE:,} are read: cut it, or remove it"
        )
    most = FEWER_PIXELS.get(kind, MOST_PIXELS)
    if image.width * image.height > most:
        where = f" of a {kind}" if kind in FEWER_PIXELS else ""
        raise DataError(f"{name} has {image.width:,} x {image.height:,} pixels; {_advice(most, where)}")


def _advice(most: int, where: str = "") -> str:
    return f"at most {most // 1_000_000} million{where} are read: shrink the picture, or remove it"


def _check_scans(stream: BinaryIO, name: str) -> None:
    """Count the scans up to the end of the first picture; what follows (films, more pictures) is not decoded."""
    place, stream_at = 2, stream.tell()
    stream.seek(0)
    content, scans = stream.read(), 0
    stream.seek(stream_at)
    while (found := _MARKER.search(content, place)) and found[1] != b"\xd9":
        scans += found[1] == b"\xda"
        if scans > MOST_SCANS:
            raise DataError(
                f"{name} has more than {MOST_SCANS} scans, which no camera writes; save it anew, or remove it"
            )
        place = found.end() + int.from_bytes(content[found.end() : found.end() + 2])


class _Metered:
    """A file as Pillow reads it; it ends with an error where it is read in too many pieces, or has too long a head."""

    def __init__(self, stream: BinaryIO, reads: int) -> None:
        self._stream = stream
        self._reads = reads
        self._head_bytes = 0
        self.head = self.pieces = True
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, count: int = -1) -> bytes:
        content = self._stream.read(count)
        self._reads -= self.pieces
        if self._reads < 0:
            raise ValueError("it is cut into more pieces than pictures are")
        # WebP's reader takes the whole file at once.
        self._head_bytes += len(content) if self.head and count >= 0 else 0
        if self._head_bytes > HEAD_BYTES:
            raise ValueError(f"more than {HEAD_BYTES // 2**20} MB stand before its pixels")
        return content
