"""Defines what a report is made of: sections of figures, tables and pictures, for the template to lay out."""

import base64
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from fmtda.protocol.printable import printable

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8A7CC9", "#9A9A2E")
"""Okabe and Ito's, which colour-blind people tell apart, less black and yellow, which one of light and dark hides."""

CLASS_COLOURS = (
    *("#4E79A7", "#F28E2B", "#59A14F", "#E15759", "#B07AA1", "#9C755F", "#EDC948", "#76B7B2", "#FF9DA7", "#8A8A8A"),
    *("#1F77B4", "#2CA02C", "#D62728", "#9467BD", "#17BECF", "#BCBD22", "#AEC7E8", "#FFBB78", "#98DF8A", "#C5B0D5"),
)
GREY = "#8A8F98"

TableCell = str | float | int | None


@dataclass(frozen=True)
class Figure:
    """Describes one plotly figure; its colours of text and grid are the template's, by light and dark.

    Attributes
    ----------
    data : list of dict
        Plotly's traces.
    layout : dict
        Plotly's layout, as far as it is the figure's own.
    title : str
        Above it.
    height : int
        Pixels.
    """

    data: list[dict[str, Any]]
    layout: dict[str, Any] = field(default_factory=dict)
    title: str = ""
    height: int = 320


@dataclass(frozen=True)
class Figures:
    """Puts figures beside each other where there is room, below each other on a phone."""

    kind: ClassVar[str] = "figures"
    items: Sequence[Figure]
    size: str = "half"
    """``whole``, ``half`` or ``third`` of a wide page, at least."""


@dataclass(frozen=True)
class ReportTable:
    """Lists rows of cells; columns of numbers, units included, stand at the right."""

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[TableCell]]
    folded: str = ""
    """What a reader clicks on to see the table; empty: it is open."""


@dataclass(frozen=True)
class GalleryPicture:
    """Shows a picture, a data URI, with what stands below it, and whether it is ``right``, ``wrong`` or neither."""

    source: str
    text: str
    caption: Sequence[str] = ()
    state: str = ""


@dataclass(frozen=True)
class Gallery:
    """Shows pictures in rows under a heading."""

    kind: ClassVar[str] = "gallery"
    title: str
    pictures: Sequence[GalleryPicture]
    size: str = "small"
    """``small``, ``medium``, ``wide`` or ``large``."""


@dataclass(frozen=True)
class Text:
    """Holds a paragraph, or a line to copy."""

    kind: ClassVar[str] = "text"
    text: str
    code: bool = False


Block = Figures | ReportTable | Gallery | Text


@dataclass(frozen=True)
class Section:
    """Holds a heading, what a reader should know, and what there is to see."""

    title: str
    text: str
    blocks: Sequence[Block]


LONGEST_LABEL = 200
"""Characters of a text in a figure at most."""

TEMPLATES = {"hovertemplate", "texttemplate"}
"""Texts of a figure that are plotly's markup; no text of a run is ever put into one."""

EVERY_OBJECTS = {
    *("__defineGetter__", "__defineSetter__", "__lookupGetter__", "__lookupSetter__", "__proto__", "constructor"),
    *("hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable", "toLocaleString", "toString", "valueOf"),
}
"""What every object of JavaScript has: plotly keeps categories in one, and would find these there from the start."""

LISTED = 100
"""Lines about what was left out that a page has at most."""


def as_plotly_text(value: Any) -> Any:
    """Make every text below a figure's `data` or `layout` one that plotly draws as it is written.

    Plotly takes labels, names and titles for markup: ``<b>``, ``<br>``, ``<a href="...">``, ``&amp;``.
    """
    if isinstance(value, dict):
        return {key: each if key in TEMPLATES else as_plotly_text(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_plotly_text(each) for each in value]
    if isinstance(value, str):
        shown = html.escape(printable(value, LONGEST_LABEL), quote=False)
        return f"&#{ord(shown[0])};{shown[1:]}" if shown in EVERY_OBJECTS else shown
    return value


def with_what_is_left_out(sections: Sequence[Section], left_out: Sequence[str]) -> dict[str, Any]:
    """Add to the sections of a page a table of what can't be shown, and a sentence that says so."""
    if not left_out:
        return {"sections": sections, "left_out": ""}
    rows = [[line] for line in left_out[:LISTED]]
    if len(left_out) > LISTED:
        rows.append([f"and {len(left_out) - LISTED:,} more"])
    told = f"{plural(len(left_out), 'part')} of these files can't be used and {'is' if len(left_out) == 1 else 'are'}"
    table = ReportTable(["what can't be used"], rows, f"left out ({len(left_out):,})")
    about = "Damaged, of another program, or not finite."
    return {"sections": [*sections, Section("Left out", about, [table])], "left_out": f"{told} left out."}


def png(pixels: np.ndarray) -> str:
    """Encode a picture, uint8 (H, W, 3), as a data URI."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return data_uri(file.getvalue(), "image/png")


def data_uri(content: bytes, media_type: str) -> str:
    """Encode a file's content as a data URI, to stand inside a page as it is."""
    from markupsafe import Markup

    return Markup(f"data:{media_type};base64,{base64.b64encode(content).decode()}")


def percent(value: float | None) -> str:
    """Write a percentage as ``91.5 %``, or a dash for None."""
    return "–" if value is None else f"{value:.1f} %"


def shown_number(value: float | None) -> str:
    """Write a number with four digits, or a dash for None."""
    return "–" if value is None else f"{value:.4g}"


def shown_bytes(count: float | None) -> str:
    """Write a size as ``612 B``, ``17.5 kB`` or ``2.88 MB``, or a dash for None."""
    if count is None:
        return "–"
    if count < 1e3:
        return f"{count:.0f} B"
    return f"{count / 1e3:.1f} kB" if count < 1e6 else f"{count / 1e6:.2f} MB"


def shown_seconds(seconds: float | None) -> str:
    """Write a duration as ``0.84 s``, ``42 s``, ``12 min`` or ``3 h 05 min``, or a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def rounds_axis(last: int) -> dict[str, Any]:
    """Make an axis of rounds up to `last`, with ticks at whole ones."""
    return {"title": {"text": "round"}, "dtick": max(1, math.ceil(last / 8)), "tick0": 0}


def enumerated(words: Sequence[str]) -> str:
    """Join words as in ``blend, fonts and pen``; many are counted."""
    words = list(words)
    if len(words) > 8:
        return f"{', '.join(words[:6])} and {len(words) - 6} more"
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def plural(count: int, word: str) -> str:
    """Write a count with its word, as ``1 client`` or ``4 clients``."""
    return f"{count} {word}{'' if count == 1 else 's'}"
