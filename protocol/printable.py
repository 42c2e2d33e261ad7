"""Makes text of somebody else harmless for terminals, logs and lines of people: no control character stays one."""

import unicodedata

LONGEST = 400
"""Characters of a foreign text that are shown at most, unless the place says otherwise."""

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode's categories of what moves the cursor, turns the direction of writing, breaks lines or shows nothing."""


def printable(text: object, longest: int = LONGEST) -> str:
    """Return a text on one line, each of its hidden characters as Python writes it (``\\x1b``), cut where it is long.

    Parameters
    ----------
    text
        Anything; its `str` counts.
    longest
        Characters of the result at most, not counting the mark of a cut.

    Examples
    --------
    >>> printable("red: \\x1b[31m")
    'red: \\\\x1b[31m'
    """
    whole = str(text)
    shown = "".join(
        each.encode("unicode_escape").decode("ascii") if unicodedata.category(each) in HIDDEN else each
        for each in whole[: longest + 1]
    )
    return shown if len(shown) <= longest else f"{shown[:longest]}…"
