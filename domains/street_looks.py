"""Renders street scenes from shapes to pictures with labels: materials' colours, light, haze and camera."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, zoom

from fmtda.domains.street_scenes import FARTHEST, HEIGHT, WIDTH, Range, StreetScene
from fmtda.domains.street_shapes import CLASS_OF, CLASSES, Shape

# Pictures are drawn this much larger and averaged.
SUPERSAMPLING = 2
SKY = 0
"""Identifier of a pixel that no shape covers; those of the shapes follow."""
SKY_DISTANCE = 3 * FARTHEST

Colour = tuple[int, int, int]
Ramp = tuple[Colour, ...]
Palette = Mapping[str, Ramp]
"""Of each material the colours from tone 0 to tone 1, at equal distances."""

# How much of a look's texture a material shows.
ROUGHNESS = {
    "asphalt": 0.5,
    "paving": 0.7,
    "grass": 0.8,
    "leaves": 1.0,
    "trunk": 0.8,
    "wall": 0.5,
    "roof": 0.8,
    "coat": 0.4,
}


@dataclass(frozen=True)
class Look:
    """Says what makes a domain's pictures of the same scenes different.

    Attributes
    ----------
    palette : mapping
        Colours of every material.
    sky : (colour, colour)
        In the zenith and at the horizon; the latter is the haze's too.
    light : (float, float, float)
        Factor of each channel, on all that doesn't shine itself.
    brightness : (float, float)
        Bounds of a picture's own factor.
    texture : float
        Standard deviation of a rough surface's brightness, as a share of it.
    haze : (float, float)
        Bounds of the extinction, per metre.
    lit : mapping of str to (float, colour)
        Materials of which some shine: the share of tones that do, and the light's colour.
    glow : float
        How much of that light spreads around.
    blur : (float, float)
        Bounds of the standard deviation in pixels.
    noise : (float, float)
        Bounds of the standard deviation in grey levels.
    """

    palette: Palette
    sky: tuple[Colour, Colour]
    light: tuple[float, float, float] = (1.0, 1.0, 1.0)
    brightness: Range = (1.0, 1.0)
    texture: float = 0.0
    haze: Range = (0.0, 0.0)
    lit: Mapping[str, tuple[float, Colour]] = field(default_factory=dict)
    glow: float = 0.0
    blur: Range = (0.0, 0.0)
    noise: Range = (0.0, 0.0)


def render(scene: StreetScene, look: Look, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Render a scene in a look.

    Parameters
    ----------
    scene : StreetScene
    look : Look
    rng : numpy.random.Generator
        Draws what differs from picture to picture of a look.

    Returns
    -------
    picture : numpy.ndarray
        uint8 (3, HEIGHT, WIDTH).
    labels : numpy.ndarray
        int8 (HEIGHT, WIDTH), indices into `CLASSES`; no pixel is void.
    """
    owner = _owners(scene)
    sky = _sky(scene, look)
    bright = rng.uniform(*look.brightness)
    surface = np.array([(0.0, 0.0, 0.0), *(_colour(shape, look) for shape in scene.shapes)], dtype=np.float32)[owner]
    surface *= _texture(scene, look, owner, rng) * bright * np.array(look.light, dtype=np.float32)
    surface = np.where((owner == SKY)[..., None], bright * sky, surface)

    light = np.array([(0.0, 0.0, 0.0), *(_own_light(shape, look) for shape in scene.shapes)], dtype=np.float32)[owner]
    surface = np.where(light.any(axis=-1, keepdims=True), light, surface)
    clear = np.exp(-rng.uniform(*look.haze) * _distances(scene, owner))[..., None]
    seen = clear * surface + (1 - clear) * bright * sky
    if look.glow:
        seen += look.glow * _spread(clear * light, 4 * SUPERSAMPLING)
    return _photographed(seen, look, rng), _labels(scene, owner)


def _owners(scene: StreetScene) -> np.ndarray:
    """Which shape is seen in each supersampled pixel: 0 for none, else its place and one."""
    image = Image.new("I", (SUPERSAMPLING * WIDTH, SUPERSAMPLING * HEIGHT), SKY)
    draw = ImageDraw.Draw(image)
    for number, shape in enumerate(scene.shapes, start=1):
        outline = [(SUPERSAMPLING * column, SUPERSAMPLING * row) for column, row in shape.outline]
        (draw.ellipse if shape.ellipse else draw.polygon)(outline, fill=number)
    return np.asarray(image)


def _labels(scene: StreetScene, owner: np.ndarray) -> np.ndarray:
    label_of = np.array([CLASSES.index("sky"), *(CLASS_OF[shape.material] for shape in scene.shapes)], dtype=np.int8)
    return label_of[owner[::SUPERSAMPLING, ::SUPERSAMPLING]]


def _rows() -> np.ndarray:
    """Row of each supersampled row in the picture, float32 (rows, 1)."""
    return ((np.arange(SUPERSAMPLING * HEIGHT, dtype=np.float32) + 0.5) / SUPERSAMPLING)[:, None]


def _distances(scene: StreetScene, owner: np.ndarray) -> np.ndarray:
    """In metres, of what is seen in each supersampled pixel."""
    ground = np.minimum(scene.camera.distance(_rows()), SKY_DISTANCE)
    own = np.array([np.nan, *(np.nan if shape.depth is None else shape.depth for shape in scene.shapes)])[owner]
    return np.where(np.isnan(own), ground, own).astype(np.float32)


def _sky(scene: StreetScene, look: Look) -> np.ndarray:
    """Colour of the sky in each row, and below the horizon that at the horizon: float32 (rows, 1, 3)."""
    share = np.clip(_rows() / scene.camera.horizon, 0, 1)[..., None]
    zenith, horizon = (np.array(colour, dtype=np.float32) for colour in look.sky)
    return zenith + share * (horizon - zenith)


def _colour(shape: Shape, look: Look) -> np.ndarray:
    ramp = np.array(look.palette[shape.material], dtype=np.float32)
    place = shape.tone * (len(ramp) - 1)
    lower = min(int(place), len(ramp) - 2) if len(ramp) > 1 else 0
    upper = min(lower + 1, len(ramp) - 1)
    return shape.shade * (ramp[lower] + (place - lower) * (ramp[upper] - ramp[lower]))


def _own_light(shape: Shape, look: Look) -> Colour:
    """What the shape shines with; black where it doesn't."""
    share, colour = look.lit.get(shape.material, (0.0, (0, 0, 0)))
    return colour if shape.tone < share else (0, 0, 0)


def _texture(scene: StreetScene, look: Look, owner: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Factor of each supersampled pixel's brightness, float32 (rows, columns, 1): fine grain on coarse patches."""
    rough = np.array([0.0, *(ROUGHNESS.get(shape.material, 0.0) for shape in scene.shapes)])[owner]
    fine = zoom(rng.standard_normal((HEIGHT, WIDTH)), SUPERSAMPLING, order=1)
    coarse = zoom(rng.standard_normal((HEIGHT // 8, WIDTH // 8)), 8 * SUPERSAMPLING, order=1)
    factor = 1 + look.texture * rough * (fine + 0.5 * coarse)
    return np.clip(factor, 0.3, 1.7).astype(np.float32)[..., None]


def _spread(picture: np.ndarray, sigma: float) -> np.ndarray:
    return gaussian_filter(picture, (sigma, sigma, 0))


def _photographed(seen: np.ndarray, look: Look, rng: np.random.Generator) -> np.ndarray:
    """What the camera makes of it: blurred, averaged over the supersampled pixels, noisy."""
    sharp = _spread(seen, SUPERSAMPLING * rng.uniform(*look.blur))
    averaged = sharp.reshape(HEIGHT, SUPERSAMPLING, WIDTH, SUPERSAMPLING, 3).mean(axis=(1, 3))
    noisy = averaged + rng.normal(0, rng.uniform(*look.noise), averaged.shape)
    return noisy.clip(0, 255).round().astype(np.uint8).transpose(2, 0, 1)


GAME_PALETTE: Palette = {
    "asphalt": ((88, 88, 96), (112, 112, 120)),
    "marking": ((245, 245, 240),),
    "shadow": ((48, 48, 56),),
    "paving": ((176, 168, 160), (204, 196, 184)),
    "kerb": ((150, 146, 142),),
    "wall": ((196, 104, 80), (222, 184, 136), (170, 150, 150), (236, 220, 190)),
    "window": ((70, 100, 140), (110, 150, 190)),
    "shop": ((60, 80, 100), (150, 180, 190)),
    "roof": ((150, 60, 50), (110, 70, 60)),
    "grass": ((92, 172, 60), (120, 190, 80)),
    "leaves": ((36, 130, 44), (84, 168, 56)),
    "trunk": ((104, 70, 40), (124, 90, 60)),
    "cloud": ((236, 242, 250), (255, 255, 255)),
    "paint": ((210, 30, 36), (240, 200, 40), (240, 240, 240), (40, 90, 210), (30, 30, 40)),
    "glass": ((40, 50, 64), (90, 120, 140)),
    "tyre": ((24, 24, 28),),
    "tail light": ((220, 20, 20),),
    "headlight": ((255, 250, 220),),
    "coat": ((220, 60, 60), (250, 170, 30), (60, 120, 220), (150, 60, 170)),
    "trousers": ((40, 44, 80), (80, 60, 50)),
    "skin": ((240, 196, 160), (130, 84, 60)),
    "post": ((70, 74, 80), (100, 104, 110)),
    "sign": ((220, 30, 30), (250, 210, 30), (30, 90, 210)),
    "lamp": ((230, 230, 220),),
}

# Bright limewash, tiles, dry grass, red earth: nothing keeps the colour it has in the game.
WARM_PALETTE: Palette = {
    "asphalt": ((150, 134, 118), (172, 156, 138)),
    "marking": ((226, 200, 120),),
    "shadow": ((96, 82, 76),),
    "paving": ((160, 110, 88), (186, 136, 108)),
    "kerb": ((120, 96, 84),),
    "wall": ((240, 232, 216), (150, 190, 200), (230, 170, 170), (120, 130, 160)),
    "window": ((40, 70, 60), (70, 50, 40)),
    "shop": ((90, 40, 50), (40, 90, 80)),
    "roof": ((200, 110, 60), (90, 90, 110)),
    "grass": ((170, 160, 84), (190, 172, 110)),
    "leaves": ((104, 112, 50), (160, 130, 48)),
    "trunk": ((150, 134, 116), (180, 166, 150)),
    "cloud": ((250, 226, 206), (255, 240, 226)),
    "paint": ((70, 130, 120), (200, 190, 170), (130, 60, 90), (150, 160, 170), (90, 70, 50)),
    "glass": ((70, 80, 70), (140, 150, 140)),
    "tyre": ((52, 44, 40),),
    "tail light": ((180, 70, 40),),
    "headlight": ((240, 226, 190),),
    "coat": ((70, 90, 70), (200, 200, 200), (110, 60, 40), (60, 60, 70)),
    "trousers": ((140, 130, 110), (60, 70, 80)),
    "skin": ((220, 176, 140), (110, 74, 54)),
    "post": ((110, 90, 70), (60, 80, 70)),
    "sign": ((40, 120, 80), (240, 240, 230), (200, 110, 30)),
    "lamp": ((200, 180, 150),),
}

# As on a grey day, without the game's bright colours.
PLAIN_PALETTE: Palette = {
    "asphalt": ((78, 78, 80), (108, 106, 104)),
    "marking": ((200, 200, 195),),
    "shadow": ((44, 44, 46),),
    "paving": ((136, 132, 128), (160, 154, 148)),
    "kerb": ((120, 118, 116),),
    "wall": ((140, 90, 76), (170, 150, 124), (128, 124, 124), (196, 188, 174)),
    "window": ((54, 62, 72), (96, 106, 116)),
    "shop": ((60, 64, 72), (120, 126, 128)),
    "roof": ((110, 64, 56), (80, 74, 74)),
    "grass": ((86, 112, 62), (108, 126, 80)),
    "leaves": ((48, 80, 42), (82, 106, 58)),
    "trunk": ((76, 62, 50), (98, 84, 70)),
    "cloud": ((200, 204, 210), (226, 228, 230)),
    "paint": ((130, 34, 38), (170, 170, 172), (210, 210, 208), (44, 62, 104), (34, 34, 38)),
    "glass": ((36, 42, 48), (84, 94, 100)),
    "tyre": ((26, 26, 28),),
    "tail light": ((150, 30, 28),),
    "headlight": ((220, 216, 200),),
    "coat": ((120, 50, 50), (60, 64, 70), (60, 84, 124), (150, 130, 90)),
    "trousers": ((40, 44, 60), (80, 72, 64)),
    "skin": ((214, 176, 150), (116, 80, 60)),
    "post": ((74, 76, 78), (104, 106, 106)),
    "sign": ((180, 40, 40), (210, 180, 50), (40, 80, 160)),
    "lamp": ((200, 200, 190),),
}

LOOKS: Mapping[str, Look] = {
    "game": Look(GAME_PALETTE, sky=((80, 150, 235), (190, 220, 250)), brightness=(0.9, 1.05), noise=(0.0, 1.0)),
    "palette": Look(
        WARM_PALETTE,
        sky=((150, 180, 190), (240, 214, 184)),
        brightness=(0.85, 1.1),
        texture=0.22,
        blur=(0.2, 0.5),
        noise=(1.0, 4.0),
    ),
    "dusk": Look(
        PLAIN_PALETTE,
        sky=((28, 36, 84), (226, 128, 84)),
        light=(0.5, 0.46, 0.6),
        brightness=(0.75, 1.1),
        texture=0.12,
        haze=(0.001, 0.004),
        lit={
            "window": (0.3, (255, 206, 120)),
            "shop": (0.8, (255, 226, 170)),
            "lamp": (1.0, (255, 220, 150)),
            "headlight": (1.0, (255, 250, 230)),
            "tail light": (1.0, (255, 40, 30)),
        },
        glow=0.5,
        blur=(0.2, 0.6),
        noise=(4.0, 9.0),
    ),
    "fog": Look(
        PLAIN_PALETTE,
        sky=((196, 200, 204), (206, 208, 210)),
        brightness=(0.85, 1.05),
        texture=0.12,
        haze=(0.02, 0.05),
        blur=(0.3, 0.8),
        noise=(1.0, 4.0),
    ),
}
