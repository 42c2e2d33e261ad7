"""Draws digits in the typefaces that ship with matplotlib, which are the same on every machine."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from fmtda.domains.family import Part

SIDE = 96
HEIGHT = 42

# Of matplotlib's 40 font files, those with upright lining digits in their proper places: not the symbol
# fonts, nor "Last Resort", nor cmmi10 with its old-style digits. Weights, slopes and the fixed-width cut of
# DejaVu Sans, which has the same letterforms, count as one typeface, so no letterform is in both parts.
TYPEFACES: dict[Part, dict[str, tuple[str, ...]]] = {
    "train": {
        "DejaVu Sans": (
            "DejaVuSans.ttf",
            "DejaVuSans-Bold.ttf",
            "DejaVuSans-Oblique.ttf",
            "DejaVuSans-BoldOblique.ttf",
            "DejaVuSansMono.ttf",
            "DejaVuSansMono-Bold.ttf",
            "DejaVuSansMono-Oblique.ttf",
            "DejaVuSansMono-BoldOblique.ttf",
        ),
        "STIX General": (
            "STIXGeneral.ttf",
            "STIXGeneralBol.ttf",
            "STIXGeneralItalic.ttf",
            "STIXGeneralBolIta.ttf",
        ),
        "Computer Modern Typewriter": ("cmtt10.ttf",),
    },
    "test": {
        "DejaVu Serif": (
            "DejaVuSerif.ttf",
            "DejaVuSerif-Bold.ttf",
            "DejaVuSerif-Italic.ttf",
            "DejaVuSerif-BoldItalic.ttf",
        ),
        "Computer Modern Roman": ("cmr10.ttf", "cmb10.ttf", "cmti10.ttf"),
        "Computer Modern Sans": ("cmss10.ttf",),
    },
}


def draw(labels: np.ndarray, part: Part, rng: np.random.Generator, *, neighbours: bool = False) -> torch.Tensor:
    """Draw one digit for each label, in a typeface chosen at random.

    Parameters
    ----------
    labels : numpy.ndarray
        int (N,), the digits 0 to 9.
    part : {"train", "test"}
        Which typefaces to draw from; the two parts share none.
    rng : numpy.random.Generator
        Draws typeface, cut and neighbours.
    neighbours : bool
        Whether another digit stands to the left and one to the right, as in a house number, mostly.

    Returns
    -------
    torch.Tensor
        float32 (N, 1, SIDE, SIDE): how much of each pixel is ink, 0 to 1. The digit is in the middle, HEIGHT
        pixels tall.
    """
    typefaces = list(TYPEFACES[part].values())
    masks = np.empty((len(labels), SIDE, SIDE), dtype=np.uint8)
    for mask, label in zip(masks, labels, strict=True):
        cuts = typefaces[rng.integers(len(typefaces))]
        left, right = (
            str(digit) if neighbours and there else ""
            for digit, there in zip(rng.integers(10, size=2), rng.random(2) < 0.8, strict=True)
        )
        mask[:] = np.asarray(_drawn(left, str(label), right, _font(cuts[rng.integers(len(cuts))])))
    return torch.from_numpy(masks)[:, None].float() / 255


def _drawn(left: str, digit: str, right: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    picture = Image.new("L", (SIDE, SIDE))
    start, top, end, bottom = font.getbbox(digit)
    origin = ((SIDE - start - end) / 2 - font.getlength(left), (SIDE - top - bottom) / 2)
    ImageDraw.Draw(picture).text(origin, left + digit + right, fill=255, font=font)
    return picture


@cache
def _font(file: str) -> ImageFont.FreeTypeFont:
    """The font in the size in which its digit 8 is HEIGHT pixels tall."""
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", file)
    # The basic layout is in every build of Pillow, the other one is not.
    trial = ImageFont.truetype(path, 100, layout_engine=ImageFont.Layout.BASIC)
    _, top, _, bottom = trial.getbbox("8")
    return trial.font_variant(size=round(100 * HEIGHT / (bottom - top)))
