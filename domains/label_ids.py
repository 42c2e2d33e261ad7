"""Says what the pixel values of known label maps stand for, and how they become labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

VOID = -1
"""Label of a pixel that counts for no class."""
MOST_CLASSES = 127
"""As many as int8 labels tell apart."""

CITYSCAPES: Mapping[int, str] = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
"""The 19 classes that Cityscapes evaluates, of its 34 label ids, in the order of their train ids (Cordts et al. 2016).

GTA5 (Richter et al. 2016) and CrossCity (Chen et al. 2017) use the same ids; CrossCity's maps hold 13 of the classes.
"""

CAMVID: Mapping[int, str] = dict(
    enumerate(
        (
            "sky",
            "building",
            "pole",
            "road",
            "pavement",
            "tree",
            "sign-symbol",
            "fence",
            "car",
            "pedestrian",
            "bicyclist",
        )
    )
)
"""The 11 classes of CamVid's maps as SegNet gives them out (Badrinarayanan et al. 2017); 11 is void."""


def lookup_table(names: Mapping[int, str], classes: Sequence[str]) -> np.ndarray:
    """Make the table of the label of every pixel value.

    Parameters
    ----------
    names : mapping of int to str
        Class name of each id, 0 to 255.
    classes : sequence of str
        Class names in the order of the labels, at most `MOST_CLASSES`.

    Returns
    -------
    numpy.ndarray
        int8 (256,): `VOID` for an id without a name, and for one whose class is not among `classes`.
    """
    label_of = {name: label for label, name in enumerate(classes)}
    table = np.full(256, VOID, dtype=np.int8)
    for value, name in names.items():
        table[value] = label_of.get(name, VOID)
    return table
