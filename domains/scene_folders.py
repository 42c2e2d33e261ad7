"""Holds the family `scene-folders`: pictures with label maps of CamVid, GTA5, Cityscapes, CrossCity and the user's own.

Our choice: by how much the aspect ratios of a picture and its label map may differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fmtda.domains.cache import cached_rows, fingerprint
from fmtda.domains.decoding import decoded
from fmtda.domains.examples import DataError, Examples
from fmtda.domains.family import DataSpec, Family, Part
from fmtda.domains.label_ids import MOST_CLASSES, VOID, lookup_table
from fmtda.domains.picture_files import opened_picture
from fmtda.domains.scene_layouts import EXPECTED, SceneFiles, SceneLayout, layout_of
from fmtda.domains.streets import Streets
from fmtda.domains.untrusted_files import check_places
from fmtda.protocol.settings import AUTO, Scalar

# Raised whenever a change here, in label_ids.py or in scene_layouts.py changes a picture or a label.
RECIPE_VERSION = 1

# A label map whose width over height differs by more than this share belongs to another picture.
SAME_ASPECT = 0.02


class SceneFolders(Family):
    """Reads scenes with a class a pixel; `--data-dir` is the folder of a layout in `domains.scene_layouts`.

    A class is known by its name: whatever a domain's label maps show beside the run's classes is void.
    """

    name = "scene-folders"
    kind = "scenes"
    looked_at = "names"
    origin = "your own folders; CamVid, GTA5, Cityscapes, CrossCity by hand"
    segmentation = True
    # The same kind of pictures, the same network. Own statistics of one drive harm, as its source says (docs).
    training = Streets.training | {"own-statistics": False}

    def domains_in(self, data_dir: Path | None) -> tuple[str, ...]:
        return _layout(data_dir).domains

    def defaults(self, data_dir: Path | None = None, given: Mapping[str, Scalar] | None = None) -> dict[str, Scalar]:
        layout, given = _layout(data_dir), given or {}
        source = given.get("source", AUTO)
        if source == AUTO:
            source = layout.usual_domains[0]
        if source not in layout.domains:
            raise DataError(f"data.source={source}: no such domain there; allowed: {', '.join(layout.domains)}")
        targets = [domain for domain in layout.usual_domains if domain != source]
        if not targets and given.get("targets", AUTO) == AUTO:
            raise DataError(f"--data-dir {data_dir} holds one domain, {source}; add another, or name the --targets")
        return {
            "source": source,
            "targets": ",".join(targets),
            "classes": ",".join(layout.names.values()),
            "input-shape": layout.usual_shape,
            **self.training,
        }

    def check(self, domains: Sequence[str], spec: DataSpec) -> None:
        super().check(domains, spec)
        for domain in domains:
            self._scenes(domain, spec)

    def load(self, domain: str, part: Part, spec: DataSpec) -> Examples:
        super().check([domain], spec)
        everything, names = self._scenes(domain, spec)
        scenes = [scene for scene in everything if scene.part == part]
        _, height, width = spec.input_shape
        if not scenes:
            if part == "train":
                raise DataError(f"none of the {len(everything)} scenes of domain {domain!r} is for training; add some")
            return Examples(
                torch.empty(0, 3, height, width, dtype=torch.uint8), torch.empty(0, height, width, dtype=torch.int8)
            )
        prints = fingerprint([file for scene in scenes for file in (scene.picture, scene.label_map) if file])
        key = {
            "family": self.name,
            "domain": domain,
            "part": part,
            "recipe": RECIPE_VERSION,
            "files": hashlib.sha256(repr(prints).encode(errors="surrogateescape")).hexdigest(),
            "ids": names,
            "classes": spec.classes,
            "input-shape": spec.input_shape,
        }
        decode = partial(decode_scene, table=lookup_table(names, spec.classes), height=height, width=width)
        size, what = sum(size for _, size, _ in prints), f"scenes of {domain}, {part} part"
        return cached_rows(key, len(scenes), lambda: map(_stacked, decoded(decode, scenes, size, what)))

    def _scenes(self, domain: str, spec: DataSpec) -> tuple[list[SceneFiles], Mapping[int, str]]:
        """A domain's scenes and the names of its ids, after a look whether they fit the spec."""
        if len(spec.input_shape) != 3 or spec.input_shape[0] != 3:
            shape = "x".join(map(str, spec.input_shape))
            raise DataError(f"data.input-shape={shape}: pictures are 3xHEIGHTxWIDTH, such as 3x180x240")
        if len(spec.classes) > MOST_CLASSES:
            raise DataError(f"{len(spec.classes)} classes given; scenes have at most {MOST_CLASSES}, name fewer")
        layout = _layout(spec.data_dir)
        scenes = layout.scenes_of(domain)
        if not scenes:
            raise DataError(f"domain {domain!r} has no picture in {spec.data_dir}; expected is {EXPECTED}")
        if spec.data_dir is not None:
            check_places((file for scene in scenes for file in (scene.picture, scene.label_map) if file), spec.data_dir)
        unknown = [name for name in spec.classes if name not in layout.names.values()]
        if unknown and any(scene.label_map for scene in scenes):
            raise DataError(
                f"the label maps of domain {domain!r} know no class {', '.join(unknown[:5])}; "
                f"allowed: {', '.join(layout.names.values())}"
            )
        return scenes, layout.names


def decode_scene(scene: SceneFiles, table: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Decode a picture and its labels in a given size; they are stretched where that is of another aspect ratio.

    Parameters
    ----------
    scene : SceneFiles
        The picture in any format of `picture_files.FORMATS`; the label map with one channel of ids, palette or not.
    table : numpy.ndarray
        int8 (256,), the label of each id.
    height, width : int

    Returns
    -------
    picture : numpy.ndarray
        uint8 (3, height, width), bilinear with antialiasing.
    labels : numpy.ndarray
        int8 (height, width), the nearest pixel's; `VOID` everywhere without a label map.

    Raises
    ------
    DataError
        If a file is damaged, the label map has colours for ids, or it is of another shape than the picture.
    """
    # A turn by EXIF tags is left undone: label maps are drawn on the pixels as they are stored.
    with opened_picture(scene.picture) as image:
        picture_size = image.size
        picture = image if image.mode == "RGB" else image.convert("RGB")
        resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))
    if scene.label_map is None:
        return pixels, np.full((height, width), VOID, dtype=np.int8)
    with opened_picture(scene.label_map) as label_map:
        mode, size = label_map.mode, label_map.size
        ids = np.asarray(label_map.resize((width, height), Image.Resampling.NEAREST))
    _check_label_map(scene.label_map, mode, size, picture_size)
    return pixels, table[ids]


def _check_label_map(file: Path, mode: str, size: tuple[int, int], picture_size: tuple[int, int]) -> None:
    if mode not in ("L", "P"):
        raise DataError(f"{file} has the mode {mode}; a label map is an 8-bit PNG of ids, grey or with a palette")
    aspect, expected = (width / height for width, height in (size, picture_size))
    if abs(aspect / expected - 1) > SAME_ASPECT:
        sizes = ["x".join(map(str, size)) for size in (size, picture_size)]
        raise DataError(f"{file} is {sizes[0]} and its picture {sizes[1]}; mend or remove one of them")


def _stacked(scenes: Sequence[tuple[np.ndarray, np.ndarray]]) -> Examples:
    pictures, labels = zip(*scenes, strict=True)
    return Examples(torch.from_numpy(np.stack(pictures)), torch.from_numpy(np.stack(labels)))


def _layout(data_dir: Path | None) -> SceneLayout:
    if data_dir is None:
        raise DataError(f"scene-folders are read from files: give --data-dir, the folder of {EXPECTED}")
    return layout_of(data_dir)
