"""Says how many test examples clients that agree to it show, and checks such a record.

==================  ==========================  =========================================================
array               shape, dtype                what
==================  ==========================  =========================================================
features-before     (R, D) float32              z of test examples, or places, under the pre-trained G
features-after      (R, D) float32              z of the same under the client's own G at the end
classes             (R,) int16                  their classes, -1 where unknown
pictures            (P, 3, H, W) uint8          a few of them, where examples are pictures
labels              (P,) or (P, H, W) int16     their labels, -1 where unknown
predicted-before    (P,) or (P, H, W) int16     what F_g said right after pre-training
confidence-before   (P,) float32                and its probability, the mean over pixels
predicted-after     as before                   what the client says at the end
confidence-after    as before                   and its probability
==================  ==========================  =========================================================

Our choice: how many examples are shown.
"""

import numpy as np
from flwr.app import ArrayRecord

from fmtda.protocol.records import BadReply, Layout, check_arrays, layout_of

POINTS = 150
"""Examples of a domain, or places of its pictures, in a map of features."""

PICTURES = 12
"""Pictures of a domain that are shown at most."""

PICTURES_WITH_MAPS = 3
"""The same where labels are maps."""

FEATURES = {"features-before": "float32", "features-after": "float32", "classes": "int16"}
SHOWN = {
    "pictures": "uint8",
    "labels": "int16",
    "predicted-before": "int16",
    "confidence-before": "float32",
    "predicted-after": "int16",
    "confidence-after": "float32",
}


def check_illustration(
    record: ArrayRecord, classes: int, features: int, shape: tuple[int, ...], segmentation: bool = False
) -> None:
    """Refuse a record that is not what the table above says.

    Parameters
    ----------
    record
        As it came.
    classes
        C; no class is beyond it.
    features
        D.
    shape
        Of one input.
    segmentation
        Whether predictions are maps; labels are too then, unless the client has none.

    Raises
    ------
    BadReply
        Naming the array and what is wrong with it.
    """
    with_pictures = len(shape) == 3
    expected = {**FEATURES, **(SHOWN if with_pictures else {})}
    declared = layout_of(record)
    rows = _rows(declared, "classes", POINTS)
    shapes = {"features-before": (rows, features), "features-after": (rows, features), "classes": (rows,)}
    if with_pictures:
        pictures = _rows(declared, "pictures", PICTURES)
        one = (pictures, *shape[1:]) if segmentation else (pictures,)
        labels = declared["labels"][0] if "labels" in declared else one
        shapes |= {"pictures": (pictures, *shape), "labels": labels if labels == (pictures,) else one}
        shapes |= {f"predicted-{when}": one for when in ("before", "after")}
        shapes |= {f"confidence-{when}": (pictures,) for when in ("before", "after")}
    check_arrays(record, {name: (shapes[name], dtype) for name, dtype in expected.items()})
    for name in set(record) & {"classes", "labels", "predicted-before", "predicted-after"}:
        values = record[name].numpy()
        if values.min(initial=0) < -1 or values.max(initial=0) >= classes:
            raise BadReply(f"{name} has classes from {values.min()} to {values.max()}, allowed are -1 to {classes - 1}")
    for name in set(record) & {"confidence-before", "confidence-after"}:
        if not ((values := record[name].numpy()) >= 0).all() or (values > 1 + 1e-4).any():
            raise BadReply(f"{name} is no probability: {np.min(values)} to {np.max(values)}")


def _rows(declared: Layout, name: str, most: int) -> int:
    """How many rows an array claims to have."""
    if name not in declared or not declared[name][0]:
        raise BadReply(f"{name} is missing")
    if declared[name][0][0] > most:
        raise BadReply(f"{name} has {declared[name][0][0]} rows, allowed are {most}")
    return declared[name][0][0]
