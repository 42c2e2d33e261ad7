"""Foreign text is on one line, short, and holds no character that a terminal obeys."""

import unicodedata

import pytest

from fmtda.protocol.printable import HIDDEN, printable


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("svhn/0003: no data", "svhn/0003: no data"),
        ("naïve 値 ß", "naïve 値 ß"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("a\r\nb\tc\0", "a\\r\\nb\\tc\\x00"),
        ("txt.exe\u202egpj", "txt.exe\\u202egpj"),
        ("\x9b31m", "\\x9b31m"),
        ("\u2028", "\\u2028"),
        ("\ud800", "\\ud800"),
        (None, "None"),
    ],
)
def test_hidden_characters_are_written_out(given: object, shown: str) -> None:
    assert printable(given) == shown


def test_every_hidden_character_of_unicode_is_written_out() -> None:
    hidden = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in HIDDEN]
    assert len(hidden) > 900_000 // 2
    left = [each for each in hidden[:: len(hidden) // 5_000] if each in printable(each)]
    assert not left


def test_a_long_text_is_cut() -> None:
    assert printable("x" * 10_000) == "x" * 400 + "…"
    assert printable("\x00" * 10_000, longest=8) == "\\x00\\x00…"
