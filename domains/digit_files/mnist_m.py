"""Reads MNIST-M, Ganin's archive of pictures, or what it unpacks to."""

import gzip
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image

from fmtda.domains.damaged_files import reading
from fmtda.domains.digit_files.file_ends import head, tail
from fmtda.domains.digit_files.layout import FileLayout, digits
from fmtda.domains.examples import DataError, Examples
from fmtda.domains.family import Part
from fmtda.domains.picture_files import opened_picture, picture_in
from fmtda.domains.untrusted_files import Unpacked, check_places, opened, size_of, text_of

LONGEST_MEMBER = 16 * 2**20
"""Bytes of a file in the archive; the longest list has one million, a picture a few thousand."""


def _check(files: Sequence[Path]) -> None:
    (file,) = files
    if file.suffix == ".txt":
        listed = _listed(file)
        folder = _picture_folder(file)
        there = {path.name for path in folder.glob("*")}
        missing = sorted(listed.keys() - there)
        if missing:
            raise DataError(
                f"{file} lists {len(listed)} pictures, but {len(missing)} of them are not in {folder}, "
                f"{missing[0]} for one; unpack the archive anew"
            )
        return
    with reading(file):
        if head(file, 2) != b"\x1f\x8b":
            raise ValueError("it is no gzip file")
        # gzip ends with the length of its content, which is a multiple of 512 for a whole tar archive.
        length = int.from_bytes(tail(file, 4), "little")
        if length == 0 or length % 512:
            raise ValueError("it stops before its end")


def _read(files: Sequence[Path], part: Part) -> Examples:
    (file,) = files
    if file.suffix != ".txt":
        return _read_archive(file, part)
    listed = _listed(file)
    folder = _picture_folder(file)
    check_places((folder / name for name in listed), file.parent)
    pictures = {}
    for name in listed:
        with opened_picture(folder / name) as picture:
            pictures[name] = _pixels(picture)
    return _gathered(listed, pictures, file)


def _read_archive(file: Path, part: Part) -> Examples:
    listed: dict[str, int] = {}
    pictures: dict[str, np.ndarray] = {}
    with reading(file), opened(file) as packed, tarfile.open(fileobj=_unpacked(packed), mode="r|") as archive:
        for member in archive:
            path = Path(member.name)
            if path.name == f"mnist_m_{part}_labels.txt":
                listed = _parsed(_content(archive, member).decode())
            elif path.parent.name == f"mnist_m_{part}" and path.suffix == ".png":
                with picture_in(_content(archive, member), f"{member.name} in {file}") as picture:
                    pictures[path.name] = _pixels(picture)
    return _gathered(listed, pictures, file)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    if stream is None:
        raise ValueError(f"{member.name} in it is no file")
    if member.size > LONGEST_MEMBER:
        raise ValueError(f"{member.name} in it has {member.size:,} bytes; a picture or a list has fewer")
    return stream.read()


def _gathered(listed: dict[str, int], pictures: dict[str, np.ndarray], file: Path) -> Examples:
    names = sorted(listed)
    missing = [name for name in names if name not in pictures]
    if missing or not names:
        raise DataError(
            f"{file} lists {len(names)} pictures for this part and holds {len(names) - len(missing)} of them; "
            "get it anew"
        )
    stacked = torch.from_numpy(np.stack([pictures[name] for name in names])).permute(0, 3, 1, 2)
    return digits(stacked, np.array([listed[name] for name in names]), file)


def _unpacked(packed: BinaryIO) -> BinaryIO:
    return io.BufferedReader(Unpacked(gzip.GzipFile(fileobj=packed), size_of(packed)), 2**16)


def _pixels(picture: Image.Image) -> np.ndarray:
    if picture.size != (32, 32):
        raise ValueError(f"it has {picture.width}x{picture.height} pixels, not 32x32")
    return np.asarray(picture.convert("RGB"))


def _listed(file: Path) -> dict[str, int]:
    with reading(file):
        return _parsed(text_of(file))


def _parsed(text: str) -> dict[str, int]:
    """Lines like "00000005.png 2": label by picture."""
    return {name: int(label) for name, label in (line.split() for line in text.splitlines() if line)}


def _picture_folder(label_file: Path) -> Path:
    return label_file.with_name(label_file.name.removesuffix("_labels.txt"))


LAYOUT = FileLayout(
    folders=("mnist_m", "MNIST-M/mnist_m", "MNIST-M", "."),
    names={
        "train": (("mnist_m_train_labels.txt", "mnist_m.tar.gz"),),
        "test": (("mnist_m_test_labels.txt", "mnist_m.tar.gz"),),
    },
    check=_check,
    read=_read,
)
