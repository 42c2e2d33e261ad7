"""Makes the flat shapes of a material before a camera that street scenes are put together from.

The street runs along z, away from the camera, x is to the right and y up, all in metres; pictures are in pixels, from
the upper left corner. A tone, 0 to 1, says which of a material's colours a shape has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

CLASSES = ("road", "sidewalk", "building", "vegetation", "sky", "car", "person", "pole")
MATERIALS = {
    "road": ("asphalt", "marking", "shadow"),
    "sidewalk": ("paving", "kerb"),
    "building": ("wall", "window", "shop", "roof"),
    "vegetation": ("grass", "leaves", "trunk"),
    "sky": ("cloud",),
    "car": ("paint", "glass", "tyre", "tail light", "headlight"),
    "person": ("coat", "trousers", "skin"),
    "pole": ("post", "sign", "lamp"),
}
CLASS_OF = {material: label for label, name in enumerate(CLASSES) for material in MATERIALS[name]}

Point = tuple[float, float]


@dataclass(frozen=True)
class Camera:
    """This is a pinhole that looks along a street, which may bend.

    Attributes
    ----------
    height : float
        In metres above the road.
    focal : float
        Focal length in pixels.
    column, horizon : float
        Vanishing point in pixels.
    bend : float
        As in `domains.street_scenes.StreetLayout`.
    """

    height: float
    focal: float
    column: float
    horizon: float
    bend: float

    def project(self, x: float, y: float, z: float) -> Point:
        """Return column and row of a point at a distance z > 0."""
        return (
            self.column + self.focal * (x / z + self.bend * z),
            self.horizon + self.focal * (self.height - y) / z,
        )

    def distance(self, row: np.ndarray) -> np.ndarray:
        """Compute the distance in metres of the ground seen in these rows; infinite at the horizon and above."""
        below = np.maximum(row - self.horizon, 1e-9)
        return np.where(row > self.horizon, self.focal * self.height / below, np.inf)


@dataclass(frozen=True, slots=True)
class Shape:
    """This is a flat thing of one material.

    Attributes
    ----------
    outline : sequence of (float, float)
        Corners in pixels, column and row; of an ellipse the upper left and lower right corner of its box.
    material : str
        One of `MATERIALS`.
    tone : float
        0 to 1, which of the material's colours it has.
    depth : float or None
        Distance in metres; None on the ground and in the sky, where the row tells it.
    shade : float
        Factor of its brightness: 1 faces the light.
    ellipse : bool
    """

    outline: Sequence[Point]
    material: str
    tone: float
    depth: float | None = None
    shade: float = 1.0
    ellipse: bool = False


def strip(camera: Camera, left: float, right: float, along: np.ndarray, material: str, tone: float) -> Shape:
    """Make a strip on the ground, from `left` to `right`, at the distances `along`."""
    there = [camera.project(left, 0, z) for z in along]
    back = [camera.project(right, 0, z) for z in along[::-1]]
    return Shape(there + back, material, tone)


def alongside(
    camera: Camera,
    x: float,
    near: float,
    far: float,
    low: float,
    high: float,
    material: str,
    tone: float,
    depth: float,
    shade: float = 1.0,
) -> Shape:
    """Make a rectangle that runs along the street."""
    corners = ((low, near), (high, near), (high, far), (low, far))
    return Shape([camera.project(x, y, z) for y, z in corners], material, tone, depth, shade)


def upright(
    camera: Camera, x: float, z: float, width: float, low: float, high: float, material: str, tone: float
) -> Shape:
    """Make a rectangle that faces the camera, with its middle at x."""
    corners = ((-width / 2, low), (-width / 2, high), (width / 2, high), (width / 2, low))
    return Shape([camera.project(x + across, y, z) for across, y in corners], material, tone, z)


def post(camera: Camera, x: float, z: float, low: float, high: float, tone: float) -> Shape:
    """Make a pole, never thinner than a pixel."""
    return upright(camera, x, z, max(0.16, z / camera.focal), low, high, "post", tone)


def ellipse(
    column: float, row: float, across: float, down: float, material: str, tone: float, depth: float | None
) -> Shape:
    """Make an ellipse by its centre and half axes in pixels."""
    box = ((column - across, row - down), (column + across, row + down))
    return Shape(box, material, tone, depth, ellipse=True)


def blob(
    camera: Camera,
    x: float,
    y: float,
    z: float,
    radius: float,
    material: str,
    tone: float,
    rng: np.random.Generator | None = None,
) -> Iterator[Shape]:
    """Make something round; with a generator, of seven smaller ones, darker below."""
    centres = np.zeros((1, 2)) if rng is None else rng.uniform(-0.7, 0.7, (7, 2))
    for right, up in centres[np.argsort(centres[:, 1])]:
        column, row = camera.project(x + radius * right, y + radius * up, z)
        size = camera.focal * radius / z * (1.0 if rng is None else rng.uniform(0.5, 0.8))
        box = ((column - size, row - size), (column + size, row + size))
        yield Shape(box, material, tone, z, 1 + 0.25 * up, ellipse=True)
