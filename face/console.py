"""Opens the terminal that commands print tables to."""

import sys
from typing import TextIO

from rich.console import Console
from rich.text import Text

from fmtda.protocol.printable import printable

LONGEST_LINE = 4000
"""Characters of a line at most; a command line that continues a run is to be copied whole."""

WIDTH_WITHOUT_TERMINAL = 120


def open_console() -> Console:
    """Open the terminal, or lines of one width where there is none; text is no markup there."""
    width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
    return Console(width=width, markup=False, emoji=False)


def say(text: object, file: TextIO | None = None) -> None:
    """Write a line for people, ``fmtda: ...``; control characters in it are shown, not obeyed.

    Parameters
    ----------
    text
        Anything; its `str` counts.
    file
        Where to; stdout without it.
    """
    print(f"fmtda: {printable(text, LONGEST_LINE)}", file=file or sys.stdout, flush=True)


def plain(text: object) -> Text:
    """Make text of anybody one that a table of rich shows as it is: no markup, no control character."""
    return Text(printable(text, LONGEST_LINE))
