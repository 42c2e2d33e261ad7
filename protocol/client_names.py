"""Makes clients' names, and says which text is one: a name becomes a folder, a word in a page, the key of a seed.

A name is ``DOMAIN/NNNN``: share NNNN, counted from 0000, of a domain. A client's owner may send any text in its place,
so whoever takes a name from elsewhere has it checked (`check_client_name`), and whoever makes a path of one once more.

Our choice: which characters a domain's name may have, and how many.
"""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from fmtda.protocol.printable import printable

LONGEST_DOMAIN = 64
"""Characters of a domain's name at most."""

LONGEST_FILE_NAME = 255
"""Bytes of a file's name at most, everywhere."""

DOMAIN = re.compile(r"[\w-](?:[\w -]|\.(?!\.))*(?<![. ])")
"""Letters and digits of any script, blanks, dashes, underscores and single dots; at either end no blank and no dot."""

INVISIBLE_LETTERS = re.compile("[\u115f\u1160\u3164\uffa0]")
"""Letters by Unicode's word that show nothing: with one of them two names would look the same."""

SHARE = re.compile(r"[0-9]{4}|[1-9][0-9]{4,8}")
"""As `client_name` writes it, which is one way for every number."""

ALLOWED = (
    f"letters, digits, blanks, dashes, underscores and single dots, {LONGEST_DOMAIN} characters at most, no blank or "
    "dot at either end, in Unicode's normal form C"
)


def check_domain(domain: str) -> None:
    """Refuse what is no domain's name.

    Raises
    ------
    ValueError
        Saying what is allowed, in one line.
    """
    if not _is_domain(domain):
        raise ValueError(f"{shown(domain)} is no name of a domain; allowed are {ALLOWED}")


def check_client_name(name: str) -> None:
    """Refuse what is no client's name: a domain, one slash, and a share of four digits or more.

    Raises
    ------
    ValueError
        Saying what is allowed, in one line.
    """
    domain, _, share = name.rpartition("/")
    if not (_is_domain(domain) and SHARE.fullmatch(share)):
        raise ValueError(
            f"{shown(name)} is no client's name; expected DOMAIN/SHARE as in svhn/0003, in a domain {ALLOWED}"
        )


def _is_domain(domain: str) -> bool:
    return (
        len(domain) <= LONGEST_DOMAIN
        and DOMAIN.fullmatch(domain) is not None
        and not INVISIBLE_LETTERS.search(domain)
        and len(domain.encode()) <= LONGEST_FILE_NAME
        and unicodedata.is_normalized("NFC", domain)
    )


def shown(name: str) -> str:
    """Return a text that may be no name as a message can hold it."""
    return printable(repr(name[:LONGEST_DOMAIN]), LONGEST_DOMAIN)


def client_name(domain: str, share: int) -> str:
    """Name a client: ``svhn/0003`` is share 3 of the domain svhn.

    Raises
    ------
    ValueError
        If the domain's name is none.
    """
    check_domain(domain)
    return f"{domain}/{share:04d}"


def client_names(targets: Sequence[str], clients: int) -> list[str]:
    """Name all simulated clients by partition number: domains in turn, so that they differ by at most one.

    >>> client_names(["blend", "pen"], 3)
    ['blend/0000', 'pen/0000', 'blend/0001']
    """
    return [client_name(targets[i % len(targets)], i // len(targets)) for i in range(clients)]


def domain_of(name: str) -> str:
    """Return the domain in a client's name."""
    return name.rsplit("/", 1)[0]


def folder_of(name: str, root: Path) -> Path:
    """Return the folder of a client below another one, whatever links there are.

    Raises
    ------
    ValueError
        If the name is none, or the folder would lie elsewhere.
    """
    check_client_name(name)
    folder = root / name
    if not folder.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"the folder of {name} is a link out of {root}")
    return folder
