"""Lists the pictures that a folder of domains holds, with class and part, out of names and lists alone.

DomainNet, Office-31, Office-Home and PACS are laid out as ``ROOT/DOMAIN/CLASS/FILE``; Office-31 has a folder
``images`` between the first two, DomainNet lists of its parts in ``ROOT/DOMAIN_train.txt`` and
``ROOT/DOMAIN_test.txt``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fmtda.domains.examples import DataError
from fmtda.domains.family import Part
from fmtda.domains.untrusted_files import check_name, check_places, text_of

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
LAYOUT = "ROOT/DOMAIN/CLASS/*.jpg (or jpeg, png, bmp, webp)"
TEST_SHARE = 0.2
PARTS: tuple[Part, ...] = ("train", "test")


@dataclass(frozen=True, slots=True)
class PictureFile:
    """Describes one picture file.

    Attributes
    ----------
    file : str
        Its place below ROOT.
    class_name : str or None
        None where it lies in no class folder: its label is unknown.
    part : {"train", "test"}
        Which part of its domain it belongs to.
    """

    file: str
    class_name: str | None
    part: Part


def domains_in(root: Path) -> tuple[str, ...]:
    """List the folders with at least one picture, in a class folder or straight in them, sorted.

    Raises
    ------
    DataError
        If there is none, or if one's name holds a comma or a control character, or begins or ends with a blank.
    """
    if not os.path.isdir(root):
        raise DataError(f"--data-dir {root} is no folder; give the folder ROOT of {LAYOUT}")
    domains = tuple(name for name in _folders(root) if next(_pictures_below(root, name), None))
    if not domains:
        raise DataError(f"--data-dir {root} holds no domain; give the folder ROOT of {LAYOUT}")
    for domain in domains:
        _check_name(domain, root / domain)
    return domains


def classes_of(root: Path, domain: str) -> tuple[str, ...]:
    """List a domain's classes: its class folders that hold pictures, sorted, or those of its lists by their label.

    Raises
    ------
    DataError
        If there are fewer than two, if a name holds a comma, or if a list gives a class two labels.
    """
    if _lists(root, domain):
        classes = _listed_classes(root, domain)
    else:
        folders = {class_name for class_name, _ in _pictures_below(root, domain) if class_name is not None}
        classes = tuple(sorted(folders))
    if len(classes) < 2:
        raise DataError(
            f"domain {domain!r} in {root} has {len(classes)} class folders, so it cannot be the labelled source; "
            f"name another with --source; expected is {LAYOUT} with at least two classes"
        )
    for name in classes:
        _check_name(name, root / domain / name)
    return classes


def is_labelled(root: Path, domain: str) -> bool:
    """Say whether a domain's pictures have classes: lists, or two class folders."""
    return bool(_lists(root, domain)) or len({name for name, _ in _pictures_below(root, domain) if name}) > 1


def pictures_of(root: Path, domain: str) -> list[PictureFile]:
    """List all pictures of a domain, sorted by file.

    Lists say which part a picture belongs to. Where there are none, a hash of ``DOMAIN/CLASS/FILE`` puts a fifth of
    them into the test part: the same ones whatever the seed and whichever other pictures there are.

    Raises
    ------
    DataError
        If there is none, if a list is damaged or names a file that is not there, or if what is called as a picture is
        no regular file, or lies outside the data folder (`untrusted_files.check_places`).
    """
    if _lists(root, domain):
        pictures = _listed_pictures(root, domain)
    else:
        pictures = [
            PictureFile(file, class_name, hashed_part(_identity(domain, class_name, file), TEST_SHARE))
            for class_name, file in _pictures_below(root, domain)
        ]
    if not pictures:
        raise DataError(f"domain {domain!r} has no picture in {root / domain}; expected {LAYOUT}")
    check_places((os.path.join(root, picture.file) for picture in pictures), root)
    return sorted(pictures, key=lambda picture: picture.file)


# --- folders ---


def _pictures_below(root: Path, domain: str) -> Iterator[tuple[str | None, str]]:
    """Class (None straight in the domain's folder) and place below ROOT of each picture, one folder after another."""
    top = f"{domain}/images" if os.path.isdir(root / domain / "images") else domain
    for name in _pictures(root / top):
        yield None, f"{top}/{name}"
    for class_name in _folders(root / top):
        for name in _pictures(root / top / class_name):
            yield class_name, f"{top}/{class_name}/{name}"


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in _entries(folder) if entry.is_dir())


def _pictures(folder: Path) -> Iterator[str]:
    """What is called as a picture, whatever it is: `pictures_of` looks."""
    return (entry.name for entry in _entries(folder) if entry.name.lower().endswith(ENDINGS))


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder, less what systems leave there (.DS_Store, __MACOSX)."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith((".", "__")))
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read ({error.strerror}); mend or move it") from error


def _identity(domain: str, class_name: str | None, file: str) -> str:
    """``DOMAIN/CLASS/FILE``, without the class where there is none."""
    return "/".join([domain, *filter(None, [class_name]), os.path.basename(file)])


def hashed_part(identity: str, test_share: float) -> Part:
    """Choose the part that a file is in by its name alone: neither a seed nor other files change it."""
    hashed = int.from_bytes(hashlib.sha256(identity.encode(errors="surrogateescape")).digest()[:8], "big")
    return "test" if hashed < test_share * 2**64 else "train"


def _check_name(name: str, folder: Path) -> None:
    """Settings hold domains and classes as comma lists, so that not every folder name will do."""
    if "," in name or name != name.strip():
        raise DataError(f"the folder {folder} has a comma, or a blank at an end of its name; rename it")
    check_name(name, folder)


# --- lists ---


def _lists(root: Path, domain: str) -> dict[Part, Path]:
    """A domain's two lists; empty if it has none of them."""
    lists = {part: root / f"{domain}_{part}.txt" for part in PARTS}
    missing = [file for file in lists.values() if not os.path.exists(file)]
    if len(missing) == 1:
        raise DataError(f"domain {domain!r} has one of its lists, but {missing[0]} is missing; add it or remove both")
    if missing:
        return {}
    check_places(lists.values(), root)
    return lists


def _listed_pictures(root: Path, domain: str) -> list[PictureFile]:
    pictures: dict[str, PictureFile] = {}
    for part, listing in _lists(root, domain).items():
        for file, class_name, _ in _lines(listing, domain):
            if file in pictures:
                raise DataError(f"{listing} names {file}, which is named before; a picture is in one part, once")
            pictures[file] = PictureFile(file, class_name, part)
    there = {
        f"{domain}/{folder}/{name}" for folder in _folders(root / domain) for name in _pictures(root / domain / folder)
    }
    missing = [file for file in pictures if file not in there]
    if missing:
        raise DataError(
            f"the lists of domain {domain!r} name {len(pictures):,} pictures, but {len(missing):,} of them are not in "
            f"{root}, {missing[0]} for one; unpack the domain anew"
        )
    return list(pictures.values())


def _listed_classes(root: Path, domain: str) -> tuple[str, ...]:
    """The classes in the order of their labels."""
    names: dict[int, str] = {}
    for listing in _lists(root, domain).values():
        for _, class_name, label in _lines(listing, domain):
            if names.setdefault(label, class_name) != class_name:
                raise DataError(f"{listing} gives label {label} to {names[label]} and to {class_name}")
    classes = tuple(names[label] for label in sorted(names))
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise DataError(f"the lists of domain {domain!r} give the class {twice} two labels")
    return classes


def _lines(listing: Path, domain: str) -> Iterator[tuple[str, str, int]]:
    """File, class and label of each line, as "clipart/bus/clipart_053_000001.jpg 53"."""
    for number, line in enumerate(text_of(listing, errors="surrogateescape").splitlines(), start=1):
        if not line.strip():
            continue
        file, _, label = line.strip().rpartition(" ")
        places = file.strip().split("/")
        if len(places) != 3 or places[0] != domain or not label.isdecimal() or len(label) > 9:
            raise DataError(f"{listing}, line {number}: {line!r} is not {domain}/CLASS/FILE LABEL")
        yield file.strip(), places[1], int(label)
