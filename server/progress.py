"""Tells what a run is doing: the interface that the server calls, and plain lines as its simplest form."""

import time
from collections.abc import Mapping
from typing import Protocol

from fmtda.protocol.printable import printable
from fmtda.server.metrics import ACCURACY, LOSS, METRIC_NAMES

LONGEST_NOTE = 4000
"""Characters of a line at most: some hold a whole command line to copy."""


class Progress(Protocol):
    """Watches a run; the server calls it from its own thread."""

    def stage(self, name: str, total: int) -> None:
        """Hear that a stage of `total` steps begins."""

    def advance(self, done: int) -> None:
        """Hear that `done` steps of the current stage are done."""

    def round_done(self, server_round: int, rounds: int, reached: Mapping[str, float] | None) -> None:
        """Hear that a round is over; `reached` is what it measured by domain: accuracy or mIoU in percent, or a loss.

        Empty where nobody has labels, None where nobody was asked. Round 0 is before the first.
        """

    def note(self, text: str) -> None:
        """Hear what a person should read: a client that was dropped, a resumed run."""

    def close(self) -> None:
        """Leave the terminal as it was: nothing more will come."""


class Lines:
    """Prints lines of text: one a stage, one a round with what it reached per domain and time left.

    Parameters
    ----------
    metric
        What is told: a key of `server.metrics.METRIC_NAMES`.
    """

    def __init__(self, metric: str = ACCURACY) -> None:
        self._metric = metric
        self._clock = RoundClock()

    def stage(self, name: str, total: int) -> None:
        self.note(f"{name} ({total})")

    def advance(self, done: int) -> None:
        """Do nothing: lines are written for whole stages only."""

    def round_done(self, server_round: int, rounds: int, reached: Mapping[str, float] | None) -> None:
        left = self._clock.left(server_round, rounds)
        self.note(f"round {server_round}/{rounds}: {describe(reached, self._metric)}{left}")

    def note(self, text: str) -> None:
        print(f"fmtda: {printable(text, LONGEST_NOTE)}", flush=True)

    def close(self) -> None:
        """Do nothing: lines leave nothing behind."""


class RoundClock:
    """Estimates the time left from the rounds so far."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def left(self, server_round: int, rounds: int) -> str:
        """Write ``; about 40 s left``, or nothing after the first call and after the last round."""
        now = time.monotonic()
        if self._first is None:
            self._first = (server_round, now)
            return ""
        if server_round >= rounds:
            return ""
        first_round, began = self._first
        return f"; about {(now - began) / (server_round - first_round) * (rounds - server_round):.0f} s left"


def describe(reached: Mapping[str, float] | None, metric: str) -> str:
    """Write ``accuracy blend 81.2 %, fonts 77.0 %``, or with another metric's name and unit."""
    if reached is None:
        return "not evaluated"
    name = METRIC_NAMES[metric]
    by_domain = ", ".join(
        f"{domain} {value:.4g}" if metric == LOSS else f"{domain} {value:.1f} %" for domain, value in reached.items()
    )
    return f"{name} {by_domain}" if by_domain else f"no labels, no {name}"
