"""What a client may tell: declared numbers of the declared type, length and range, and nothing else."""

import random
import re

import pytest

from fmtda.protocol.metrics import (
    INTRODUCTION,
    MOST_METRICS,
    WORK,
    BadReply,
    Metric,
    check_metrics,
    count,
    counts,
    number,
    share,
)

DECLARED = (*WORK, number("loss"), share("confident"), counts("bins", 3, most=100), count("rank", 2, 5))
HONEST = {"num-examples": 7, "seconds": 0.5, "loss": -2.5, "confident": 1.0, "bins": [0, 1, 100], "rank": 5}


def test_what_was_declared_passes_and_what_is_not_required_may_be_missing():
    check_metrics(HONEST, DECLARED)
    check_metrics({"num-examples": 1}, DECLARED)
    check_metrics({"train-examples": 1, "test-examples": 0, "shares-examples": 1}, INTRODUCTION)
    check_metrics({"num-examples": 1, "seconds": 3}, DECLARED)  # a whole number is a number


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"more": 1}, "metric more is not declared; what is: bins, confident, loss, num-examples, rank, seconds"),
        ({"num-examples": 0}, "num-examples is 0, expected a whole number from 1 to 1000000000"),
        ({"num-examples": 1.0}, "num-examples is 1.0, expected a whole number"),
        ({"num-examples": True}, "num-examples is True, expected a whole number"),
        ({"num-examples": 2**62}, "num-examples is a whole number of 63 bits"),
        ({"num-examples": 10**5000}, "num-examples is a whole number of 16610 bits"),
        ({"num-examples": "7\x1b"}, r"num-examples is 7\x1b, expected"),
        ({"seconds": -1e-9}, "seconds is -1e-09, expected a number from 0"),
        ({"seconds": float("inf")}, "metric seconds is not finite"),
        ({"loss": float("nan")}, "metric loss is not finite"),
        ({"loss": 1e13}, "loss is 10000000000000.0, expected a number from -1e+12 to 1e+12"),
        ({"loss": [1.0]}, "metric loss holds 1 numbers, expected one"),
        ({"loss": None}, "loss is None, expected a number"),
        ({"confident": 1.01}, "confident is 1.01"),
        ({"bins": 3}, "bins is 3, expected a list of 3 numbers"),
        ({"bins": [1, 2]}, "bins is 2 numbers, expected a list of 3 numbers"),
        ({"bins": [1, 2, 101]}, "bins is 101, expected a whole number from 0 to 100"),
        ({"bins": [1, 2, True]}, "bins is True"),
        ({"bins": (1, 2, 3)}, "bins is a tuple of 3, expected a list"),
        ({"rank": 6}, "rank is 6, expected a whole number from 2 to 5"),
        ({"\x1b[2J": 1}, "is no key of a metric"),
        ({"": 1}, "is no key of a metric"),
        ({"A": 1}, "is no key of a metric"),
        ({"a" * 65: 1}, "is no key of a metric"),
        ({"<script>": 1}, "is no key of a metric"),
        ({7: 1}, "is no key of a metric"),
        ({"a\n": 1}, "is no key of a metric"),
        ({f"m{i}": 1 for i in range(MOST_METRICS)}, f"holds {MOST_METRICS + 6} metrics, allowed are {MOST_METRICS}"),
    ],
)
def test_any_other_is_refused_in_one_short_printable_line(changes, said):
    with pytest.raises(BadReply, match=re.escape(said)) as caught:
        check_metrics({**HONEST, **changes}, DECLARED)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


def test_what_is_required_is_missed_by_name():
    for key in ("train-examples", "test-examples", "shares-examples"):
        told = {"train-examples": 1, "test-examples": 0, "shares-examples": 0}
        del told[key]
        with pytest.raises(BadReply, match=f"{key} is missing"):
            check_metrics(told, INTRODUCTION)


@pytest.mark.parametrize("key", ["", "A", "1a", "a b", "a/b", "a" * 65, "a\n"])
def test_a_key_that_is_none_cant_be_declared(key):
    with pytest.raises(ValueError, match="is no key of a metric"):
        Metric(key)


KEYS = [*HONEST, "more", "", "\x1b", "a" * 300, "<b>", 7, None, "constructor", "__proto__", "num_examples"]
VALUES = [
    0,
    1,
    -1,
    2**53,
    10**5000,
    0.0,
    -0.0,
    1e308,
    float("nan"),
    float("-inf"),
    True,
    None,
    "x\x1b",
    b"x",
    [],
    [0] * 3,
]
VALUES += [[0] * 10**5, [2**63] * 3, [float("nan")] * 3, [[1]], [None] * 3, {}, (), object(), 1j]


def test_five_hundred_drafts_pass_whole_or_are_refused():
    draw, passed = random.Random(5), 0
    for _ in range(500):
        told = {key: value for key, value in HONEST.items() if draw.random() < 0.9}
        for _ in range(draw.randint(0, 2)):
            told[draw.choice(KEYS)] = draw.choice(VALUES)
        try:
            check_metrics(told, DECLARED)
        except BadReply as error:
            assert str(error).isprintable() and len(str(error)) < 400
            continue
        passed += 1
        assert set(told) <= set(HONEST) and 1 <= told["num-examples"] <= 10**9
    assert 50 < passed < 400
