"""Holds the family `image-folders`: DomainNet, Office-31, Office-Home, PACS and the user's own, a folder a domain."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from fmtda.domains import image_listing
from fmtda.domains.cache import cached_rows
from fmtda.domains.decoding import decode_picture, decoded
from fmtda.domains.examples import DataError, Examples
from fmtda.domains.family import DataSpec, Family, Part
from fmtda.domains.image_listing import LAYOUT, PictureFile
from fmtda.domains.untrusted_files import status_of
from fmtda.protocol.settings import AUTO, Scalar

# Raised whenever a change here or in decoding.py changes a picture.
RECIPE_VERSION = 1

# As ResNets train in minutes on a processor; `data.input-shape` sets another.
USUAL_SHAPE = "3x96x96"
# Where a data set has photographs, they are the usual source (PACS, DomainNet, Office-Home).
USUAL_SOURCES = ("photo", "real", "real world", "real_world")


class ImageFolders(Family):
    """Reads photographs, drawings, paintings: ``ROOT/DOMAIN/CLASS/FILE``, or DomainNet's lists; `--data-dir` is ROOT.

    The classes are the source's. A target may lack some of them, and its pictures may lie in its folder without a
    class folder: real clients know no labels. Classes that the source does not have (open-set adaptation) are out
    of scope.
    """

    name = "image-folders"
    kind = "photographs"
    looked_at = "names"
    origin = "your own folders; fmtda data fetch pacs, office-home; DomainNet, Office-31 by hand"
    # Own statistics harm the source of PACS (docs/benchmarks.md), which is all that speaks for or against them.
    training: ClassVar = {
        "network": "resnet18",
        "scenery": False,
        "own-statistics": False,
        "pretraining-learning-rate": 1e-3,
        "server-batch": 16,
        "head-batch": 64,
        "network-learning-rate": 1e-4,
        "pretraining-steps": 1500,
        "pretraining-batch": 32,
        "plain-steps": 300,
        "server-steps": 20,
        "head-steps": 100,
        "self-training-steps": 40,
        "self-training-batch": 32,
        "self-training-learning-rate": 4e-3,
        "personal-batch": 128,
        "network-batch": 32,
        "network-steps": 20,
    }

    def domains_in(self, data_dir: Path | None) -> tuple[str, ...]:
        return image_listing.domains_in(_root(data_dir))

    def defaults(self, data_dir: Path | None = None, given: Mapping[str, Scalar] | None = None) -> dict[str, Scalar]:
        root, domains, given = _root(data_dir), self.domains_in(data_dir), given or {}
        source = _source(root, domains, given)
        targets, classes = [domain for domain in domains if domain != source], given.get("classes", AUTO)
        if not targets and given.get("targets", AUTO) == AUTO:
            raise DataError(
                f"--data-dir {data_dir} holds one domain, {source}, and no target beside it; give the folder ROOT of "
                f"{LAYOUT}, or name the --targets"
            )
        return {
            "source": source,
            "targets": ",".join(targets),
            "classes": classes if classes != AUTO else ",".join(image_listing.classes_of(root, source)),
            "input-shape": USUAL_SHAPE,
            **self.training,
        }

    def check(self, domains: Sequence[str], spec: DataSpec) -> None:
        super().check(domains, spec)
        for domain in domains:
            self._pictures(domain, spec)

    def load(self, domain: str, part: Part, spec: DataSpec) -> Examples:
        super().check([domain], spec)
        everything = self._pictures(domain, spec)
        pictures = [picture for picture in everything if picture.part == part]
        if not pictures:
            if part == "train":
                raise DataError(
                    f"none of the {len(everything)} pictures of domain {domain!r} is for training; add pictures"
                )
            return Examples(torch.empty(0, *spec.input_shape, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
        digest, size = _fingerprint(_root(spec.data_dir), pictures)
        key = {
            "family": self.name,
            "domain": domain,
            "part": part,
            "recipe": RECIPE_VERSION,
            "files": digest,
            "classes": spec.classes,
            "input-shape": spec.input_shape,
        }
        what = f"pictures of {domain}, {part} part"
        return cached_rows(key, len(pictures), lambda: _read(pictures, size, what, spec))

    def _pictures(self, domain: str, spec: DataSpec) -> list[PictureFile]:
        """A domain's pictures, after a look whether they fit the spec."""
        if len(spec.input_shape) != 3 or spec.input_shape[0] != 3:
            shape = "x".join(map(str, spec.input_shape))
            raise DataError(f"data.input-shape={shape}: pictures are 3xHEIGHTxWIDTH, such as 3x96x96")
        pictures = image_listing.pictures_of(_root(spec.data_dir), domain)
        found = {picture.class_name for picture in pictures if picture.class_name is not None}
        unknown = sorted(found.difference(spec.classes))
        if unknown:
            raise DataError(
                f"domain {domain!r} has {', '.join(unknown[:5])}{' and more' if len(unknown) > 5 else ''} beside the "
                f"{len(spec.classes)} classes of the source (open-set adaptation is out of scope); "
                "remove these folders, or give other classes"
            )
        return pictures


def _root(data_dir: Path | None) -> Path:
    if data_dir is None:
        raise DataError(f"image-folders are read from files: give --data-dir, the folder ROOT of {LAYOUT}")
    return data_dir


def _source(data_dir: Path, domains: Sequence[str], given: Mapping[str, Scalar]) -> str:
    """The one that is named, else photographs, else the first with labels."""
    source = given.get("source", AUTO)
    if source == AUTO:
        usual = (domain for name in USUAL_SOURCES for domain in domains if domain.lower() == name)
        labelled = (domain for domain in domains if image_listing.is_labelled(data_dir, domain))
        return next(chain(usual, labelled, domains))
    if source not in domains:
        raise DataError(f"data.source={source}: no such domain there; allowed: {', '.join(domains)}")
    return str(source)


def _fingerprint(root: Path, pictures: Sequence[PictureFile]) -> tuple[str, int]:
    """A hash of all files' places, sizes and times of change, and their size together in bytes."""
    digest, size = hashlib.sha256(), 0
    for picture in pictures:
        status = status_of(root / picture.file)
        digest.update(f"{picture.file}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
        size += status.st_size
    return digest.hexdigest(), size


def _read(pictures: Sequence[PictureFile], size: int, what: str, spec: DataSpec) -> Iterator[Examples]:
    _, height, width = spec.input_shape
    label_of: dict[str | None, int] = {None: -1}
    label_of |= {name: label for label, name in enumerate(spec.classes)}
    labels = torch.tensor([label_of[picture.class_name] for picture in pictures])
    files = [os.path.join(_root(spec.data_dir), picture.file) for picture in pictures]
    decode = partial(decode_picture, height=height, width=width)
    start = 0
    for block in decoded(decode, files, size, what):
        yield Examples(torch.from_numpy(np.stack(block)), labels[start : start + len(block)])
        start += len(block)
