"""Shows progress to people: a run's rounds and stages on a terminal, and a benchmark's cells."""

import sys
import time
from collections.abc import Mapping
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from fmtda.face.console import say
from fmtda.protocol.printable import printable
from fmtda.server.metrics import ACCURACY
from fmtda.server.progress import LONGEST_NOTE, RoundClock, describe

LETTERS_OF_A_LINE = 60
"""Of what a cell's process says, so that the bar stays on one line."""

SECONDS_BETWEEN_LINES = 10.0


def _bars(console: Console) -> Progress:
    """Make bars with what is done, and the time taken and left."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


def _print(console: Console, text: str) -> None:
    """Print a line as it is: no markup, no colours of numbers, no control characters."""
    console.print(printable(text, LONGEST_NOTE), highlight=False, soft_wrap=True, markup=False, emoji=False)


class Bars:
    """Shows two bars until `close`: the rounds, with what each reached per domain and time left, and the current stage.

    Parameters
    ----------
    console
    rounds
        How many there will be.
    metric
        What is told: a key of `server.metrics.METRIC_NAMES`.
    """

    def __init__(self, console: Console, rounds: int, metric: str = ACCURACY) -> None:
        self._metric = metric
        self._clock = RoundClock()
        self._bars = _bars(console)
        self._rounds = self._bars.add_task("rounds", total=rounds)
        self._stage = self._bars.add_task("starting", total=None)
        self._bars.start()

    def close(self) -> None:
        self._bars.stop()

    def stage(self, name: str, total: int) -> None:
        self._bars.reset(self._stage, total=total, description=printable(name))

    def advance(self, done: int) -> None:
        self._bars.advance(self._stage, done)

    def round_done(self, server_round: int, rounds: int, reached: Mapping[str, float] | None) -> None:
        self._bars.update(self._rounds, completed=server_round, total=rounds)
        left = self._clock.left(server_round, rounds)
        self.note(f"round {server_round}/{rounds}: {describe(reached, self._metric)}{left}")

    def note(self, text: str) -> None:
        _print(self._bars.console, text)


class StageProgress(Protocol):
    """Whoever watches work that has stages, but no rounds, implements this."""

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of `total` steps."""

    def advance(self, done: int) -> None:
        """Count `done` more steps as done."""

    def close(self) -> None:
        """Leave the terminal as it was: nothing more will come."""


class StageBar:
    """Shows one bar, for work of a single stage."""

    def __init__(self, console: Console) -> None:
        self._bar = _bars(console)
        self._stage = self._bar.add_task("", total=None)
        self._bar.start()

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of `total` steps."""
        self._bar.reset(self._stage, total=total, description=printable(name))

    def advance(self, done: int) -> None:
        """Count `done` more steps as done."""
        self._bar.advance(self._stage, done)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._bar.stop()


class ErrorLines:
    """Writes lines to stderr, one every `SECONDS_BETWEEN_LINES`, where stdout carries results."""

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of `total` steps."""
        self._name, self._total, self._done, self._said = name, total, 0, time.monotonic()

    def advance(self, done: int) -> None:
        """Count `done` more steps as done."""
        self._done += done
        if time.monotonic() - self._said > SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            say(f"{self._name}: {self._done:,} of {self._total:,}", sys.stderr)

    def close(self) -> None:
        """Do nothing: lines leave nothing behind."""


class CellBar:
    """Shows a benchmark's progress on a terminal: a bar of cells, with the cell at hand and its own last line."""

    def __init__(self, console: Console, cells: int, done: int) -> None:
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[said]}", style="dim", markup=False),
            console=console,
        )
        self._cells = self._bar.add_task("cells", total=cells, completed=done, left="", said="")
        self._bar.start()

    def begin(self, name: str, seconds_left: float | None) -> None:
        """Begin a cell; about so many seconds are left for it and those after it."""
        left = "" if seconds_left is None else f"{shown_duration(seconds_left)} left"
        self._bar.update(self._cells, description=printable(name), left=left, said="")

    def say(self, line: str = "") -> None:
        """Show what the cell's process printed last."""
        self._bar.update(self._cells, said=printable(line.removeprefix("fmtda: "), LETTERS_OF_A_LINE))

    def end(self, text: str) -> None:
        """Count a cell that has ended, well or not."""
        self._bar.advance(self._cells)
        self.note(text)

    def note(self, text: str) -> None:
        """Print something to read."""
        _print(self._bar.console, text)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._bar.stop()


class CellLines:
    """Tells a benchmark's progress as lines of text, where there is no terminal."""

    def __init__(self, console: Console, cells: int, done: int) -> None:
        self._console = console
        self._cells = cells
        self._done = done

    def begin(self, name: str, seconds_left: float | None) -> None:
        """Tell which cell begins, and about how many seconds are left for it and those after it."""
        left = "" if seconds_left is None else f"; about {shown_duration(seconds_left)} left"
        self.note(f"{name}: begins, cell {self._done + 1} of {self._cells}{left}")

    def say(self, line: str = "") -> None:
        """Do nothing: the cell's own lines are in its log."""

    def end(self, text: str) -> None:
        """Count a cell that has ended, well or not."""
        self._done += 1
        self.note(text)

    def note(self, text: str) -> None:
        """Print something to read."""
        _print(self._console, f"fmtda: {text}")

    def close(self) -> None:
        """Do nothing: lines leave nothing behind."""


def shown_duration(seconds: float) -> str:
    """Write a duration as ``40 s``, ``12 min`` or ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
