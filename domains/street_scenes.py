"""Places road, houses, trees, cars and people before a camera, at random.

What they are made of is said here, as `domains.street_shapes`, how that looks in `domains.street_looks`. Lengths are in
metres.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fmtda.domains.street_shapes import Camera, Shape, alongside, blob, ellipse, post, strip, upright

HEIGHT, WIDTH = 64, 96
FARTHEST = 110.0
STOREY = 3.0
# Beyond, a window is smaller than a pixel.
WINDOWS_UP_TO = 45.0
SIDES = (-1, 1)

Range = tuple[float, float]


@dataclass(frozen=True)
class StreetLayout:
    """Bounds what a domain's cameras and streets are drawn from, each uniformly between two numbers.

    Attributes
    ----------
    camera_height : (float, float)
        In metres above the road.
    horizon : (float, float)
        Row of the horizon as a share of the picture's height.
    bend : (float, float)
        Sideways shift of the street in metres for each square metre of distance; positive to the right.
    storeys : (int, int)
        Of a building, both included.
    """

    camera_height: Range
    horizon: Range
    bend: Range
    storeys: tuple[int, int]


@dataclass(frozen=True)
class StreetScene:
    """This is what a camera sees: shapes, each of which hides those before it."""

    camera: Camera
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class _Street:
    """Half widths in metres: of the road, and of the road with its sidewalks."""

    road: float
    sidewalk: float


def draw_scene(layout: StreetLayout, rng: np.random.Generator) -> StreetScene:
    """Draw a scene of a domain's layout; the generator decides everything."""
    camera = Camera(
        height=rng.uniform(*layout.camera_height),
        focal=WIDTH * rng.uniform(0.55, 0.7),
        column=WIDTH * rng.uniform(0.35, 0.65),
        horizon=HEIGHT * rng.uniform(*layout.horizon),
        bend=rng.uniform(*layout.bend),
    )
    road = rng.uniform(3.5, 5.0)
    street = _Street(road, road + rng.uniform(2.0, 3.5))
    shapes = [
        *_clouds(camera, rng),
        *_ground(camera, street, rng),
        *_skyline(camera, rng),
        *_cars(camera, street, rng),
        *_people(camera, street, rng),
    ]
    for side in SIDES:
        shapes += _houses(camera, street, layout, side, rng)
        shapes += _trees(camera, street, side, rng)
        shapes += _posts(camera, street, side, rng)
    flat = [shape for shape in shapes if shape.depth is None]
    solid = [(shape.depth, shape) for shape in shapes if shape.depth is not None]
    return StreetScene(camera, (*flat, *(shape for _, shape in sorted(solid, key=lambda placed: -placed[0]))))


def _clouds(camera: Camera, rng: np.random.Generator) -> Iterator[Shape]:
    for _ in range(rng.integers(0, 4)):
        column, row, tone = rng.uniform(0, WIDTH), rng.uniform(0, 0.8 * camera.horizon), rng.random()
        for _ in range(4):
            across, down = rng.uniform(5, 12), rng.uniform(1.5, 3.5)
            yield ellipse(column + rng.normal(0, 6), row + rng.normal(0, 1), across, down, "cloud", tone, None)


def _ground(camera: Camera, street: _Street, rng: np.random.Generator) -> Iterator[Shape]:
    corners = ((0, camera.horizon), (WIDTH, camera.horizon), (WIDTH, HEIGHT), (0, HEIGHT))
    yield Shape(corners, "grass", rng.random())
    # The nearest strip lies below the picture's lower edge.
    nearest = 0.8 * camera.focal * camera.height / (HEIGHT - camera.horizon)
    everywhere = np.geomspace(nearest, FARTHEST, 16)
    yield strip(camera, -street.sidewalk, street.sidewalk, everywhere, "paving", rng.random())
    yield strip(camera, -street.road - 0.2, street.road + 0.2, everywhere, "kerb", rng.random())
    yield strip(camera, -street.road, street.road, everywhere, "asphalt", rng.random())

    for start in np.arange(nearest - rng.uniform(0, 6), 60, 6):
        dash = np.linspace(max(start, nearest), max(start, nearest) + 3, 4)
        yield strip(camera, -0.08, 0.08, dash, "marking", 0.5)
    if rng.random() < 0.3:  # a zebra crossing
        crossing = np.array([0.0, 2.5]) + rng.uniform(8, 20)
        for x in np.arange(-street.road + 0.4, street.road - 0.4, 1.0):
            yield strip(camera, x, x + 0.5, crossing, "marking", 0.5)


def _skyline(camera: Camera, rng: np.random.Generator) -> Iterator[Shape]:
    """Trees and houses where the street ends."""
    for x in np.arange(-140, 140, 9.0):
        z = FARTHEST * rng.uniform(0.9, 1.0)
        if rng.random() < 0.3:
            yield upright(camera, x, z, 12, 0, rng.uniform(6, 16), "wall", rng.random())
        else:
            yield from blob(camera, x, rng.uniform(2, 4), z, 6, "leaves", rng.random())


def _houses(
    camera: Camera, street: _Street, layout: StreetLayout, side: int, rng: np.random.Generator
) -> Iterator[Shape]:
    z = rng.uniform(5, 9)
    while z < 90:
        if rng.random() < 0.35:
            yield from _hedge(camera, side * (street.sidewalk + 0.5), z, z + 6, side, rng)
            z += 6
            continue
        length = 3 * rng.integers(3, 6)
        x = side * (street.sidewalk + rng.choice([0.0, 0.0, 2.0]))
        height = STOREY * rng.integers(layout.storeys[0], layout.storeys[1] + 1) + 0.8
        yield from _house(camera, x, z, z + length, height, side, rng)
        z += length + rng.choice([0.0, 0.0, 3.0])


def _house(
    camera: Camera, x: float, near: float, far: float, height: float, side: int, rng: np.random.Generator
) -> Iterator[Shape]:
    """One house: the wall on the street in bays of 3 m, with windows, and the wall towards the camera."""
    tone, pane, glass = rng.random(), rng.uniform(0.9, 1.6), rng.random()
    shop = rng.random() < 0.3
    floors = np.arange(STOREY if shop else 0, height - STOREY + 0.5, STOREY)
    for z in np.arange(far - 3, near - 0.1, -3.0):
        middle = z + 1.5
        yield alongside(camera, x, z, z + 3, 0, height, "wall", tone, middle, 0.85)
        if z > WINDOWS_UP_TO:
            continue
        if shop:
            yield alongside(camera, x, z + 0.3, z + 2.7, 0.4, 2.5, "shop", rng.random(), middle)
        for floor in floors:
            ends = (middle - pane / 2, middle + pane / 2)
            yield alongside(camera, x, *ends, floor + 0.9, floor + 2.3, "window", _alike(glass, rng), middle, 0.85)

    width = 9.0
    yield upright(camera, x + side * width / 2, near, width, 0, height, "wall", tone)
    if near < WINDOWS_UP_TO:
        for across in (1.8, 4.5, 7.2):
            for floor in floors:
                beside = x + side * across
                yield upright(camera, beside, near, pane, floor + 0.9, floor + 2.3, "window", _alike(glass, rng))
    if height < 3 * STOREY:
        eaves = [camera.project(x + side * across, height, near) for across in (-0.4, width)]
        ridge = camera.project(x + side * width / 2, height + 2.5, near)
        ridge_end = camera.project(x + side * width / 2, height + 2.5, far)
        eaves_end = camera.project(x - side * 0.4, height, far)
        roof = rng.random()
        yield Shape((eaves[0], ridge, ridge_end, eaves_end), "roof", roof, near)
        yield Shape((*eaves, ridge), "wall", tone, near)


def _hedge(camera: Camera, x: float, near: float, far: float, side: int, rng: np.random.Generator) -> Iterator[Shape]:
    height, tone = rng.uniform(0.8, 2.0), rng.random()
    yield alongside(camera, x, near, far, 0, height, "leaves", tone, far, 0.8)
    yield upright(camera, x + side * 4, near, 8, 0, height, "leaves", tone)


def _trees(camera: Camera, street: _Street, side: int, rng: np.random.Generator) -> Iterator[Shape]:
    for z in _places(rng.integers(2, 8), 7, 60, 4, rng):
        x = side * (street.sidewalk + rng.uniform(-0.8, 2.0))
        crown, radius = rng.uniform(2.8, 4.5), rng.uniform(1.2, 2.2)
        yield upright(camera, x, z, 0.35, 0, crown, "trunk", rng.random())
        yield from blob(camera, x, crown + 0.6 * radius, z, radius, "leaves", rng.random(), rng)


def _posts(camera: Camera, street: _Street, side: int, rng: np.random.Generator) -> Iterator[Shape]:
    """Street lamps, which hang over the road, and traffic signs."""
    x = side * (street.road + 0.5)
    for z in np.arange(rng.uniform(6, 20), 45, rng.uniform(14, 22)):
        tone, tall = rng.random(), rng.uniform(5, 6.5)
        yield post(camera, x, z, 0, tall, tone)
        yield upright(camera, x - side * 0.7, z, 1.4, tall - 0.1, tall + 0.05, "post", tone)
        yield upright(camera, x - side * 1.4, z, 0.7, tall - 0.1, tall + 0.25, "lamp", rng.random())
    for z in _places(rng.integers(0, 4), 5, 25, 4, rng):
        tone, top, size = rng.random(), rng.uniform(2.2, 2.8), rng.uniform(0.7, 1.0)
        yield post(camera, x, z, 0, top, rng.random())
        if rng.random() < 0.5:
            (column, row), across = camera.project(x, top, z), camera.focal * size / 2 / z
            yield ellipse(column, row, across, across, "sign", tone, z)
        else:
            yield upright(camera, x, z, size, top - size / 2, top + size / 2, "sign", tone)


def _cars(camera: Camera, street: _Street, rng: np.random.Generator) -> Iterator[Shape]:
    lanes = {"ahead": street.road / 2, "oncoming": -street.road / 2, "parked": rng.choice(SIDES) * (street.road - 1)}
    for lane, x in lanes.items():
        for z in _places(rng.integers(1, 4), 6, 45, 7, rng):
            yield from _car(camera, x + rng.normal(0, 0.15), z, lane == "oncoming", rng)


def _car(camera: Camera, x: float, z: float, oncoming: bool, rng: np.random.Generator) -> Iterator[Shape]:
    """A car from behind or in front, with the flank that the camera sees; its body and, narrower, its cabin."""
    tone, length, width = rng.random(), rng.uniform(3.8, 4.8), rng.uniform(1.7, 1.9)
    belt, top = rng.uniform(0.85, 1.0), rng.uniform(1.4, 1.8)
    far, half = z + length, width / 2
    yield strip(camera, x - half - 0.1, x + half + 0.1, np.array([z - 0.2, far]), "shadow", 0.5)

    yield _lid(camera, x, z, far, width, belt, tone, far)
    flank = x - half if x > 0 else x + half
    roof = flank + 0.15 * (1 if x > 0 else -1)
    panes = ((flank, belt, z + 0.3), (roof, top, z + 0.8), (roof, top, far - 1), (flank, belt, far - 0.5))
    yield Shape([camera.project(*corner) for corner in panes], "glass", 0.2, far)
    yield alongside(camera, flank, z, far, 0.3, belt, "paint", tone, far, 0.75)
    for wheel in (z + 0.7, far - 0.8):
        yield alongside(camera, flank, wheel - 0.3, wheel + 0.3, 0, 0.6, "tyre", 0.5, far)

    yield _lid(camera, x, z + 0.4, far - 1, width - 0.4, top, tone, z)
    cabin = [(-half, belt), (-half + 0.2, top), (half - 0.2, top), (half, belt)]
    yield Shape([camera.project(x + across, y, z + 0.4) for across, y in cabin], "paint", tone, z, 0.95)
    window = [(-half + 0.15, belt), (-half + 0.3, top - 0.1), (half - 0.3, top - 0.1), (half - 0.15, belt)]
    yield Shape([camera.project(x + across, y, z + 0.4) for across, y in window], "glass", 0.8, z)
    yield upright(camera, x, z, width, 0.3, belt, "paint", tone)
    for across in (-half + 0.2, half - 0.2):
        yield upright(camera, x + across, z, 0.25, 0, 0.3, "tyre", 0.5)
        yield upright(camera, x + across, z, 0.3, 0.6, 0.8, "headlight" if oncoming else "tail light", 0.5)


def _lid(
    camera: Camera, x: float, near: float, far: float, width: float, height: float, tone: float, depth: float
) -> Shape:
    """The level top of a car's body or cabin, which a high camera sees."""
    corners = ((-width / 2, near), (width / 2, near), (width / 2, far), (-width / 2, far))
    return Shape([camera.project(x + across, height, z) for across, z in corners], "paint", tone, depth)


def _people(camera: Camera, street: _Street, rng: np.random.Generator) -> Iterator[Shape]:
    for z in _places(rng.integers(2, 9), 4, 20, 0.4, rng):
        if rng.random() < 0.2 and z > 8:
            x = rng.uniform(-street.road, street.road)
        else:
            x = rng.choice(SIDES) * rng.uniform(street.road + 0.6, street.sidewalk - 0.3)
        yield from _person(camera, x, z, rng)


def _person(camera: Camera, x: float, z: float, rng: np.random.Generator) -> Iterator[Shape]:
    tall, stride = rng.uniform(1.5, 1.9), rng.uniform(0.05, 0.3)
    hip, neck = 0.48 * tall, 0.84 * tall
    coat, trousers = rng.random(), rng.random()
    for foot in (-stride, stride):
        leg = ((x + foot - 0.09, 0), (x + foot + 0.09, 0), (x + 0.14, hip), (x - 0.14, hip))
        yield Shape([camera.project(across, y, z) for across, y in leg], "trousers", trousers, z)
    body = ((-0.17, 0.95 * hip), (0.17, 0.95 * hip), (0.27, neck), (-0.27, neck))
    yield Shape([camera.project(x + across, y, z) for across, y in body], "coat", coat, z)
    (column, row), radius = camera.project(x, 0.92 * tall, z), camera.focal * 0.13 / z
    yield ellipse(column, row, radius, 1.2 * radius, "skin", rng.random(), z)


def _places(
    count: int | np.integer, nearest: float, farthest: float, apart: float, rng: np.random.Generator
) -> list[float]:
    """At most `count` distances, at least `apart` from one another."""
    kept: list[float] = []
    for z in np.exp(rng.uniform(np.log(nearest), np.log(farthest), count)):
        if all(abs(z - other) >= apart for other in kept):
            kept.append(z)
    return kept


def _alike(tone: float, rng: np.random.Generator) -> float:
    """That tone in six windows of ten, so that a house has its own and some differ."""
    return rng.random() if rng.random() < 0.4 else tone
