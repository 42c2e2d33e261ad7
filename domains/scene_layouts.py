"""Knows how data sets of scenes lie on disk: their domains, and each domain's pictures with label maps and parts.

Known by names alone; no file but ``classes.txt`` is opened.

Our choice: which pictures are the test part where there is no official one, or none that can be kept.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fmtda.domains.examples import DataError
from fmtda.domains.family import Part
from fmtda.domains.image_listing import ENDINGS, hashed_part
from fmtda.domains.label_ids import CAMVID, CITYSCAPES, MOST_CLASSES
from fmtda.domains.untrusted_files import check_name, check_places, text_of

EXPECTED = (
    "CamVid's {train,val,test} with {train,val,test}annot, folders gta5, cityscapes or crosscity, or "
    "DOMAIN/images with DOMAIN/labels and classes.txt"
)

LAST_SHARE = 0.3
"""The share of a sequence's frames, the last ones, that are its test part."""

HASHED_SHARE = 0.1
"""The share of pictures in no order that are the test part."""


@dataclass(frozen=True, slots=True)
class SceneFiles:
    """Names one picture and its label map.

    Attributes
    ----------
    picture : Path
    label_map : Path or None
        None where the picture is unlabelled.
    part : {"train", "test"}
        Which part of its domain it belongs to.
    """

    picture: Path
    label_map: Path | None
    part: Part


class SceneLayout(ABC):
    """Says where the domains below a folder lie, and what their label maps' pixel values mean.

    Attributes
    ----------
    usual_shape : str
        Shape of an input if the user sets none.
    names : mapping of int to str
        Class name of each pixel value that stands for a class, in the order of the labels.
    domains : tuple of str
        The domains found, sorted.
    """

    usual_shape: str
    names: Mapping[int, str]
    domains: tuple[str, ...]

    @property
    @abstractmethod
    def usual_domains(self) -> tuple[str, ...]:
        """List the domains in the order in which they come as source and, after it, as targets."""

    @abstractmethod
    def scenes_of(self, domain: str) -> list[SceneFiles]:
        """List all scenes of a domain, sorted by file.

        Raises
        ------
        DataError
            If one is there twice, or has no label map where the data set gives each picture one.
        """


def layout_of(root: Path) -> SceneLayout:
    """Find the layout of a folder.

    Raises
    ------
    DataError
        If the folder is missing, or holds none of the layouts; if ``classes.txt`` is damaged.
    """
    if not os.path.isdir(root):
        raise DataError(f"--data-dir {root} is no folder; give the folder of {EXPECTED}")
    layout: SceneLayout = Sequences(root)
    if not layout.domains:
        layout = DomainFolders(root)
    if not layout.domains:
        raise DataError(f"--data-dir {root} holds no scenes; give the folder of {EXPECTED}")
    for domain in layout.domains:
        if "," in domain or domain != domain.strip():
            raise DataError(f"domain {domain!r} in {root} has a comma, or a blank at an end of its name; rename it")
        check_name(domain, root / domain)
    return layout


class Sequences(SceneLayout):
    """Knows CamVid as SegNet gives it out; a domain is a sequence, the files' names up to the first ``_``.

    The official parts cut through sequences, so ours are others: neighbouring frames are nearly equal, and the last
    `LAST_SHARE` of a sequence's frames are its test part.
    """

    usual_shape = "3x180x240"

    def __init__(self, root: Path) -> None:
        self.names = CAMVID
        self._root = root
        self._frames = [frame for part in ("train", "val", "test") for frame in _pictures(root / part)]
        self.domains = tuple(sorted({_sequence(frame) for frame in self._frames}))

    @property
    def usual_domains(self) -> tuple[str, ...]:
        usual = ("0016E5", "0006R0", "0001TP", "Seq05VD")
        known = tuple(domain for domain in usual if domain in self.domains)
        return known + tuple(domain for domain in self.domains if domain not in usual)

    def scenes_of(self, domain: str) -> list[SceneFiles]:
        frames = sorted((frame for frame in self._frames if _sequence(frame) == domain), key=lambda frame: frame.name)
        for first, second in zip(frames, frames[1:], strict=False):
            if first.stem == second.stem:
                raise DataError(f"{first} and {second} are the same frame of {domain}; remove one")
        maps = {part: _by_stem(self._root / f"{part}annot") for part in ("train", "val", "test")}
        found = [maps[frame.parent.name].get(frame.stem) for frame in frames]
        _need_maps(domain, frames, found)
        return _last_for_testing(frames, found)


class DomainFolders(SceneLayout):
    """Knows a folder a domain: GTA5, Cityscapes and CrossCity with their own names, and the user's own scenes.

    With a file ``classes.txt`` there, every domain is the user's own: its label maps hold the places of the names.
    """

    def __init__(self, root: Path) -> None:
        own_names = _read_names(root / "classes.txt")
        self.names = CITYSCAPES if own_names is None else own_names
        self.usual_shape = "3x128x256" if own_names is None else "3x180x240"
        folders = {folder.name: folder for folder in _folders(root)}
        self._readers: dict[str, _Reader] = {
            domain: _OwnScenes(folder, labels_readable=own_names is not None)
            for domain, folder in folders.items()
            if os.path.isdir(folder / "images")
        }
        if own_names is None:
            self._readers |= _official(folders)
        self._with_labels = {domain for domain, folder in folders.items() if os.path.isdir(folder / "labels")}
        self.domains = tuple(sorted(self._readers))

    @property
    def usual_domains(self) -> tuple[str, ...]:
        """Rendered scenes are the usual source, then Cityscapes, then the first of the user's own with label maps."""
        usual = ("gta5", "cityscapes")
        first = tuple(domain for domain in usual if domain in self.domains)
        others = (domain for domain in self.domains if domain not in usual)
        return first + tuple(sorted(others, key=lambda domain: domain not in self._with_labels))

    def scenes_of(self, domain: str) -> list[SceneFiles]:
        return self._readers[domain].scenes(domain)


# --- readers of one domain's folder ---


class _Reader(Protocol):
    def scenes(self, domain: str) -> list[SceneFiles]: ...


@dataclass(frozen=True)
class _Gta5:
    folder: Path

    def scenes(self, domain: str) -> list[SceneFiles]:
        pictures, maps = list(_pictures(self.folder / "images")), _by_stem(self.folder / "labels")
        found = [maps.get(picture.stem) for picture in pictures]
        _need_maps(domain, pictures, found)
        parts = [hashed_part(f"{domain}/{picture.stem}", HASHED_SHARE) for picture in pictures]
        return [SceneFiles(*scene) for scene in zip(pictures, found, parts, strict=True)]


@dataclass(frozen=True)
class _Cityscapes:
    folder: Path

    def scenes(self, domain: str) -> list[SceneFiles]:
        return self._of(domain, "train", "train") + self._of(domain, "val", "test")

    def _of(self, domain: str, official: str, part: Part) -> list[SceneFiles]:
        ending = "_leftImg8bit"
        pictures = [
            picture
            for city in _folders(self.folder / "leftImg8bit" / official)
            for picture in _pictures(city)
            if picture.stem.endswith(ending)
        ]
        maps = {
            place: file
            for city in _folders(self.folder / "gtFine" / official)
            for place, file in _by_stem(city, "_gtFine_labelIds").items()
        }
        found = [maps.get(picture.stem.removesuffix(ending)) for picture in pictures]
        _need_maps(domain, pictures, found)
        return [SceneFiles(picture, label_map, part) for picture, label_map in zip(pictures, found, strict=True)]


@dataclass(frozen=True)
class _CrossCity:
    """The training part has no label maps; those of the test part are called as their pictures, or with ``_eval``."""

    folder: Path

    def scenes(self, domain: str) -> list[SceneFiles]:
        train = [SceneFiles(picture, None, "train") for picture in _pictures(self.folder / "Images" / "Train")]
        pictures = list(_pictures(self.folder / "Images" / "Test"))
        maps = _by_stem(self.folder / "Labels" / "Test")
        found = [maps.get(f"{picture.stem}_eval", maps.get(picture.stem)) for picture in pictures]
        _need_maps(domain, pictures, found)
        return train + [
            SceneFiles(picture, found_map, "test") for picture, found_map in zip(pictures, found, strict=True)
        ]


@dataclass(frozen=True)
class _OwnScenes:
    """The user's own: any picture may be without a label map; often frames of a drive, so split in time."""

    folder: Path
    labels_readable: bool

    def scenes(self, domain: str) -> list[SceneFiles]:
        pictures, maps = list(_pictures(self.folder / "images")), _by_stem(self.folder / "labels")
        if maps and not self.labels_readable:
            raise DataError(
                f"domain {domain!r} has label maps, but there is no {self.folder.parent / 'classes.txt'} to say what "
                "their ids mean; add it, one class name a line"
            )
        return _last_for_testing(pictures, [maps.get(picture.stem) for picture in pictures])


def _official(folders: Mapping[str, Path]) -> dict[str, _Reader]:
    readers: dict[str, _Reader] = {}
    if "gta5" in folders and os.path.isdir(folders["gta5"] / "images"):
        readers["gta5"] = _Gta5(folders["gta5"])
    if "cityscapes" in folders and os.path.isdir(folders["cityscapes"] / "leftImg8bit"):
        readers["cityscapes"] = _Cityscapes(folders["cityscapes"])
    if "crosscity" in folders:
        cities = (city for city in _folders(folders["crosscity"]) if os.path.isdir(city / "Images"))
        readers |= {city.name.lower(): _CrossCity(city) for city in cities}
    return readers


# --- parts ---


def _last_for_testing(pictures: list[Path], maps: list[Path | None]) -> list[SceneFiles]:
    """Pictures in the order of their names, the last `LAST_SHARE` of them for testing."""
    first_test = len(pictures) - int(LAST_SHARE * len(pictures))
    return [
        SceneFiles(picture, label_map, "train" if place < first_test else "test")
        for place, (picture, label_map) in enumerate(zip(pictures, maps, strict=True))
    ]


# --- files ---


def _need_maps(domain: str, pictures: list[Path], maps: list[Path | None]) -> None:
    """All pictures have a label map, as given out, or none has, as a client's own; some means files are missing."""
    missing = [picture for picture, label_map in zip(pictures, maps, strict=True) if label_map is None]
    if missing and len(missing) < len(pictures):
        raise DataError(
            f"domain {domain!r} has {len(pictures):,} pictures, but {len(missing):,} of them have no label map, "
            f"{missing[0]} for one; unpack its label maps anew"
        )


def _read_names(file: Path) -> dict[int, str] | None:
    """Class names by line number from 0; None if there is no such file."""
    if not os.path.exists(file):
        return None
    check_places([file], file.parent)
    try:
        lines = text_of(file, encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} can't be read as UTF-8 text ({error}); write one class name a line") from error
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    if len(names) > MOST_CLASSES:
        raise DataError(f"{file} has {len(names):,} class names; allowed are 2 to {MOST_CLASSES}, one a line")
    for number, name in enumerate(names, start=1):
        check_name(name, f"{file}, line {number},")
        if not name or "," in name or names.index(name) != number - 1:
            raise DataError(f"{file}, line {number}: {name!r} is empty, has a comma or is there twice; mend the line")
    if len(names) < 2:
        raise DataError(f"{file} has {len(names)} class names; allowed are 2 to {MOST_CLASSES}, one a line")
    return dict(enumerate(names))


def _by_stem(folder: Path, ending: str = "") -> dict[str, Path]:
    """Label maps by their name without that ending and .png; none where there is no such folder."""
    maps = (file for file in _files(folder) if file.name.lower().endswith(".png") and file.stem.endswith(ending))
    return {file.stem.removesuffix(ending): file for file in maps}


def _pictures(folder: Path) -> Iterator[Path]:
    return (file for file in _files(folder) if file.name.lower().endswith(ENDINGS))


def _files(folder: Path) -> Iterator[Path]:
    """What lies in a folder, whatever it is: `SceneFolders` looks at what is called as a picture or label map."""
    return (Path(entry.path) for entry in _entries(folder))


def _folders(folder: Path) -> Iterator[Path]:
    return (Path(entry.path) for entry in _entries(folder) if entry.is_dir())


def _entries(folder: Path) -> Iterable[os.DirEntry[str]]:
    """What lies in a folder, sorted, less what systems leave there (.DS_Store, __MACOSX); nothing if it is missing."""
    try:
        with os.scandir(folder) as entries:
            there = [entry for entry in entries if not entry.name.startswith((".", "__"))]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read ({error.strerror}); mend or move it") from error
    return sorted(there, key=lambda entry: entry.name)


def _sequence(frame: Path) -> str:
    return frame.stem.partition("_")[0]
