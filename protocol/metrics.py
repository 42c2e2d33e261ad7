"""Declares the numbers that a client may tell, and refuses every other.

A metric has a key, says whether it is a whole number, and in which range it lies; a list says how long it is. An
algorithm declares its own (`strategies.algorithm.FederatedAlgorithm.answers`), a workload what an evaluation tells, the
conversation what an introduction does. A reply holds declared metrics alone.

Our choice: the limits that no declaration may pass.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fmtda.protocol.printable import printable

KEY = re.compile(r"[a-z][a-z0-9_-]{0,63}")
"""What a key looks like; the underscore is in those of Flower's own modifiers."""

MOST_METRICS = 48
"""Metrics in a reply at most."""

LARGEST_COUNT = 2**53 - 1
"""The largest whole number: up to it, JSON and float64 hold each exactly."""

LARGEST_NUMBER = 1e12
"""The largest size of any other number, unless its declaration says less."""

LONGEST_SECONDS = 30 * 24 * 3600.0
"""What a client may say that it took: thirty days."""

MOST_EXAMPLES = 10**9
"""Examples that a client may say it holds."""

FEW = 80
"""Characters of a foreign value in a message."""


class BadReply(ValueError):
    """Raised for a reply that must not be used; the message says what is wrong with it."""


@dataclass(frozen=True)
class Metric:
    """Declares a number, or a list of numbers, that a client may tell.

    Parameters
    ----------
    key : str
        As `KEY` has it.
    whole : bool
        Whether it is a whole number.
    least, most : float
        The range, both ends in it.
    length : int or None
        How many numbers a list holds; None for one number.
    required : bool
        Whether a reply without it is refused.

    Raises
    ------
    ValueError
        For a key that is none.
    """

    key: str
    whole: bool = False
    least: float = -LARGEST_NUMBER
    most: float = LARGEST_NUMBER
    length: int | None = None
    required: bool = False

    def __post_init__(self) -> None:
        if not KEY.fullmatch(self.key):
            raise ValueError(f"{self.key!r} is no key of a metric; allowed are {KEY.pattern}")

    def check(self, value: Any) -> None:
        """Refuse a value of another type or length, or out of range.

        Raises
        ------
        BadReply
            Naming the key, what came and what is allowed.
        """
        if self.length is None:
            if isinstance(value, list):
                raise BadReply(f"metric {self.key} holds {len(value)} numbers, expected one")
            self._check_one(value)
            return
        if not isinstance(value, list) or len(value) != self.length:
            came = f"{len(value)} numbers" if isinstance(value, list) else _shown(value)
            raise BadReply(f"{self.key} is {came}, expected a list of {self.length} numbers")
        for each in value:
            self._check_one(each)

    def _check_one(self, value: Any) -> None:
        numbers = int if self.whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, numbers):
            raise BadReply(f"{self.key} is {_shown(value)}, expected {self._allowed}")
        if not self.whole and isinstance(value, float) and not math.isfinite(value):
            raise BadReply(f"metric {self.key} is not finite")
        if not self.least <= value <= self.most:
            raise BadReply(f"{self.key} is {_shown(value)}, expected {self._allowed}")

    @property
    def _allowed(self) -> str:
        if self.whole:
            return f"a whole number from {int(self.least)} to {int(self.most)}"
        return f"a number from {self.least:g} to {self.most:g}"


def count(key: str, least: int = 0, most: int = LARGEST_COUNT, *, required: bool = False) -> Metric:
    """Declare a whole number."""
    return Metric(key, True, least, most, required=required)


def counts(key: str, length: int, most: int = LARGEST_COUNT) -> Metric:
    """Declare a list of so many whole numbers from 0 up."""
    return Metric(key, True, 0, most, length)


def number(key: str, least: float = -LARGEST_NUMBER, most: float = LARGEST_NUMBER) -> Metric:
    """Declare a number."""
    return Metric(key, False, least, most)


def share(key: str) -> Metric:
    """Declare a share of something, from 0 to 1; rounding may take it a little over."""
    return Metric(key, False, 0, 1 + 1e-6)


NUM_EXAMPLES, SECONDS = "num-examples", "seconds"
"""What every client says of its work: on how many examples, and how long it took."""

TIME = number(SECONDS, 0, LONGEST_SECONDS)

WORK = (count(NUM_EXAMPLES, least=1, most=MOST_EXAMPLES, required=True), TIME)
"""What an answer with an upload tells, whatever the algorithm."""

INTRODUCTION = (
    count("train-examples", least=1, most=MOST_EXAMPLES, required=True),
    count("test-examples", most=MOST_EXAMPLES, required=True),
    count("shares-examples", most=1, required=True),
)
"""What a client tells of itself when it is asked who it is."""


def check_metrics(told: Mapping[Any, Any], declared: Iterable[Metric]) -> None:
    """Refuse metrics that nobody declared, those out of their range, and the lack of what is required.

    Parameters
    ----------
    told
        As it came.
    declared
        What may come.

    Raises
    ------
    BadReply
        Naming the key, what came and what is allowed.
    """
    check_keys(told)
    by_key = {metric.key: metric for metric in declared}
    for key, value in told.items():
        if key not in by_key:
            raise BadReply(f"metric {printable(key, FEW)} is not declared; what is: {', '.join(sorted(by_key))}")
        by_key[key].check(value)
    for key, metric in by_key.items():
        if metric.required and key not in told:
            raise BadReply(f"{key} is missing")


def check_keys(told: Mapping[Any, Any]) -> None:
    """Refuse more metrics than any reply has, and keys that are none.

    Raises
    ------
    BadReply
        Naming the number or the key.
    """
    if len(told) > MOST_METRICS:
        raise BadReply(f"holds {len(told)} metrics, allowed are {MOST_METRICS}")
    for key in told:
        if not isinstance(key, str) or not KEY.fullmatch(key):
            raise BadReply(f"{printable(repr(key)[:FEW], FEW)} is no key of a metric; allowed are {KEY.pattern}")


def _shown(value: Any) -> str:
    """A foreign value in a few characters, whatever it is."""
    if isinstance(value, list | tuple | dict | bytes):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, int) and abs(value) > LARGEST_COUNT:
        return f"a whole number of {value.bit_length()} bits"
    return printable(value, FEW)
