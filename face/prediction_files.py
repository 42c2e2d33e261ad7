"""Writes what ``fmtda predict`` found: a line a picture as table, CSV or JSON; for segmentation label maps, overlays.

Our choice: how strongly the class colours cover a picture.
"""

import colorsys
import csv
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
from PIL import Image

from fmtda.inference.adapted_model import AdaptedModel, Prediction
from fmtda.inference.pictures import original
from fmtda.protocol.printable import printable

FORMATS = ("table", "csv", "json")

HEADS = {"global": "F_g", "local": "F_l", "personal": "personalised"}
"""The heads that vote, and what people call them."""

OPACITY = 0.5
"""Of the class colours over the picture."""

FILE_WIDTH, LABEL_WIDTH = 44, 14

LONGEST_PATH = 4096
"""Characters of a file's name in CSV at most, as the system allows."""


@dataclass(frozen=True)
class Line:
    """Holds what the model says of one picture.

    Attributes
    ----------
    file : str
    label : str
        The class; for segmentation the class of most pixels.
    probability : float
        Of the label; for segmentation the mean over pixels, each of its own label.
    share : dict of float
        By head: the probability that it gives to the label, for segmentation the mean over pixels.
    typicality : float or None
        w(x) under the domain's mixture.
    looks_like_domain : bool or None
        The mixture's verdict.
    classes : dict of float
        By class: its probability; for segmentation its share of the pixels.
    by_head : dict
        By head its whole distribution; empty for segmentation.
    """

    file: str
    label: str
    probability: float
    share: dict[str, float]
    typicality: float | None
    looks_like_domain: bool | None
    classes: dict[str, float]
    by_head: dict[str, dict[str, float]]


def lines_of(model: AdaptedModel, files: Sequence[Path], prediction: Prediction) -> list[Line]:
    """Make a line for each picture of a batch."""
    labels, names = prediction.labels, model.classes
    heads = [head for head in HEADS if head in prediction.by_head]
    chosen = labels.unsqueeze(1)
    probability = prediction.probabilities.gather(1, chosen).flatten(1).mean(dim=1).tolist()
    shares = {head: prediction.by_head[head].gather(1, chosen).flatten(1).mean(dim=1).tolist() for head in heads}
    if model.segmentation:
        pixels = labels.flatten(1)
        classes = [np.bincount(row, minlength=len(names)) / pixels.shape[1] for row in pixels.cpu().numpy()]
        most, by_head = [int(row.argmax()) for row in classes], {}
    else:
        classes, most = prediction.probabilities.tolist(), labels.tolist()
        by_head = {head: prediction.by_head[head].tolist() for head in heads}
    typicality = [None] * len(files) if prediction.typicality is None else prediction.typicality.tolist()
    looks_like = prediction.looks_like_domain
    verdicts = [None] * len(files) if looks_like is None else looks_like.tolist()
    return [
        Line(
            str(file),
            names[most[i]],
            probability[i],
            {head: shares[head][i] for head in heads},
            typicality[i],
            verdicts[i],
            dict(zip(names, map(float, classes[i]), strict=True)),
            {head: dict(zip(names, rows[i], strict=True)) for head, rows in by_head.items()},
        )
        for i, file in enumerate(files)
    ]


class Writer(Protocol):
    """Takes the lines as they come; nothing is held back but what the system buffers."""

    def add(self, lines: Sequence[Line]) -> None:
        """Write the lines of a batch."""

    def close(self, unreadable: Sequence[str]) -> None:
        """End what was written: no more will come, and these files could not be read."""


def writer(form: str, stream: TextIO, model: AdaptedModel, about: Mapping[str, Any]) -> Writer:
    """Make the writer of a format out of `FORMATS`; `about` goes to the head of JSON."""
    kinds: dict[str, Callable[[TextIO, AdaptedModel, Mapping[str, Any]], Writer]]
    kinds = {"table": _Table, "csv": _CSV, "json": _JSON}
    return kinds[form](stream, model, about)


class _Table:
    def __init__(self, stream: TextIO, model: AdaptedModel, about: Mapping[str, Any]) -> None:
        self._stream = stream
        self._heads = [head for head in HEADS if head in model.networks]
        self._mixture = model.mixture is not None
        verdict = [f"looks like {model.domain}"] if self._mixture else []
        self._write(["file", "label", "probability", *(HEADS[head] for head in self._heads), *verdict])

    def add(self, lines: Sequence[Line]) -> None:
        for line in lines:
            shares = (f"{line.share[h]:.3f}" for h in self._heads)
            cells = [printable(line.file, LONGEST_PATH), line.label, f"{line.probability:.3f}", *shares]
            verdict = ["yes" if line.looks_like_domain else "no"] if self._mixture else []
            self._write([*cells, *(f"{word} ({line.typicality:.2f})" for word in verdict)])

    def close(self, unreadable: Sequence[str]) -> None:
        """They are told elsewhere."""

    def _write(self, cells: Sequence[str]) -> None:
        file, label, *rest = map(printable, cells)
        file = file if len(file) <= FILE_WIDTH else f"...{file[3 - FILE_WIDTH :]}"
        words = [f"{file:<{FILE_WIDTH}}", f"{label:<{LABEL_WIDTH}}", *(f"{cell:>12}" for cell in rest)]
        print("  ".join(words).rstrip(), file=self._stream)


class _CSV:
    def __init__(self, stream: TextIO, model: AdaptedModel, about: Mapping[str, Any]) -> None:
        self._writer = csv.writer(stream)
        self._heads = [head for head in HEADS if head in model.networks]
        kind = "share" if model.segmentation else "p"
        classes = [f"{kind}:{name}" for name in model.classes]
        columns = ["file", "label", "probability", *self._heads, "typicality", "looks_like_domain", *classes]
        self._writer.writerow(map(_cell, columns))

    def add(self, lines: Sequence[Line]) -> None:
        for line in lines:
            verdict = ["", ""]
            if line.typicality is not None:
                verdict = [f"{line.typicality:.4f}", "yes" if line.looks_like_domain else "no"]
            numbers = [line.probability, *(line.share[head] for head in self._heads)]
            shown, classes = ([f"{n:.6g}" for n in group] for group in (numbers, line.classes.values()))
            self._writer.writerow([_cell(line.file), _cell(line.label), *shown, *verdict, *classes])

    def close(self, unreadable: Sequence[str]) -> None:
        """They are told elsewhere."""


def _cell(text: str) -> str:
    """The text as a file, a pipe and the terminal behind it can take it: no control character, nothing but UTF-8."""
    return printable(text, LONGEST_PATH)


class _JSON:
    def __init__(self, stream: TextIO, model: AdaptedModel, about: Mapping[str, Any]) -> None:
        self._stream = stream
        self._classes = "pixel_shares" if model.segmentation else "probabilities"
        self._before = "\n"
        stream.write(json.dumps(about, indent=1)[:-2] + ',\n "pictures": [')

    def add(self, lines: Sequence[Line]) -> None:
        for line in lines:
            entry = {
                "file": line.file,
                "label": line.label,
                "probability": line.probability,
                "share": line.share,
                "typicality": line.typicality,
                "looks_like_domain": line.looks_like_domain,
                self._classes: line.classes,
                **({"by_head": line.by_head} if line.by_head else {}),
            }
            self._stream.write(f"{self._before}  {json.dumps(entry)}")
            self._before = ",\n"

    def close(self, unreadable: Sequence[str]) -> None:
        self._stream.write(f'\n ],\n "unreadable": {json.dumps(list(unreadable))}\n}}\n')


class LabelMaps:
    """Writes label maps and overlays below a folder, as large as the pictures.

    ``labels/NAME.png`` holds the class of each pixel, 8 bits with a palette, as ``scene-folders`` reads them;
    ``classes.txt`` names the classes from 0 on; ``overlays/NAME.png`` shows them over the picture.

    Parameters
    ----------
    folder : Path
    classes : sequence of str
    files : sequence of Path
        All pictures that will come: names are kept below what their folders have in common.
    """

    def __init__(self, folder: Path, classes: Sequence[str], files: Sequence[Path]) -> None:
        self.folder = folder
        self._colours = _colours(len(classes))
        parents = [_absolute(file).parent for file in files]
        self._base = next(p for p in (parents[0], *parents[0].parents) if all(q.is_relative_to(p) for q in parents))
        stems = [_absolute(file).with_suffix("") for file in files]
        self._suffixes = len(set(stems)) < len(stems)  # a.jpg beside a.png
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "classes.txt").write_text("".join(f"{printable(name)}\n" for name in classes), encoding="utf-8")

    def add(self, files: Sequence[Path], labels: np.ndarray) -> None:
        """Write those of a batch; `labels` are uint8 (B, H, W)."""
        for file, each in zip(files, labels, strict=True):
            picture = original(file)
            label_map = Image.fromarray(each)
            label_map.putpalette(self._colours)
            label_map = label_map.resize(picture.size, Image.Resampling.NEAREST)
            label_map.save(self._place("labels", file))
            Image.blend(picture, label_map.convert("RGB"), OPACITY).save(self._place("overlays", file))

    def _place(self, kind: str, file: Path) -> Path:
        name = _absolute(file).relative_to(self._base)
        place = self.folder / kind / name.with_name((name.name if self._suffixes else name.stem) + ".png")
        place.parent.mkdir(parents=True, exist_ok=True)
        return place


def _absolute(file: Path) -> Path:
    """The file's place without ``..``, which would lead out of the folder that is written to."""
    return Path(os.path.abspath(file))


def _colours(classes: int) -> list[int]:
    """Make a palette of hues a golden section apart, so that neighbours differ."""
    rows = [colorsys.hsv_to_rgb(i * 0.618 % 1, 0.75, 0.95 if i % 2 else 0.7) for i in range(classes)]
    return [round(255 * value) for row in rows for value in row]
