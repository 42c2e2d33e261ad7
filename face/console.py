"""Opens the terminal that commands print tables to."""

import sys

from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 120


def open_console() -> Console:
    """Open the terminal, or lines of one width where there is none."""
    return Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)
