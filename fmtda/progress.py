"""A run's progress on a terminal: a bar of rounds, and one of the stage at hand."""

from collections.abc import Mapping

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from server.progress import RoundClock, describe_accuracy


class Bars:
    """Two bars: rounds with accuracy per domain and time left, and the current stage. They show until `close`."""

    def __init__(self, console: Console, rounds: int) -> None:
        self._clock = RoundClock()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._rounds = self._bars.add_task("rounds", total=rounds)
        self._stage = self._bars.add_task("starting Flower and Ray", total=None)
        self._bars.start()

    def close(self) -> None:
        self._bars.stop()

    def stage(self, name: str, total: int) -> None:
        self._bars.reset(self._stage, total=total, description=name)

    def advance(self, done: int) -> None:
        self._bars.advance(self._stage, done)

    def round_done(self, server_round: int, rounds: int, accuracy: Mapping[str, float]) -> None:
        self._bars.update(self._rounds, completed=server_round, total=rounds)
        left = self._clock.left(server_round, rounds)
        self.note(f"round {server_round}/{rounds}: {describe_accuracy(accuracy)}{left}")

    def note(self, text: str) -> None:
        self._bars.console.print(text, highlight=False, soft_wrap=True)
