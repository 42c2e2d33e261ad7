"""The one place that knows all families; a new family is one new file and one line here."""

from __future__ import annotations

from domains.digit_five import DigitFive
from domains.digits import Digits
from domains.examples import DataError
from domains.family import Family

FAMILIES: dict[str, Family] = {family.name: family for family in (Digits(), DigitFive())}


def family(name: str) -> Family:
    """The family of that name.

    Raises
    ------
    DataError
        If there is none; the message lists the names there are.
    """
    if name not in FAMILIES:
        raise DataError(f"unknown data {name!r}; allowed: {', '.join(FAMILIES)}")
    return FAMILIES[name]
