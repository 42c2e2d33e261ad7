"""Finds by name what can be chosen: ours by a line, other people's by an entry point of their package.

A line is ``module:object``, as in an entry point, and is imported when it is asked for: the names alone cost nothing.
"""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from fmtda.protocol.printable import printable

Registered = TypeVar("Registered")


class UnknownName(LookupError):
    """Raised for a name that nothing has; the message says which there are."""


_places_taken: ContextVar[bool] = ContextVar("places_taken", default=True)


@contextmanager
def names_alone() -> Iterator[None]:
    """Take no place in here, names alone: what somebody else's settings say then imports nothing that isn't installed.

    An installed package's names, of its entry points, are names.
    """
    before = _places_taken.set(False)
    try:
        yield
    finally:
        _places_taken.reset(before)


class Registry(Generic[Registered]):
    """Finds what can be chosen by name.

    Parameters
    ----------
    group : str
        The group of entry points in which installed packages add to it: ``fmtda.strategies``.
    lines : mapping of str to str
        Ours: ``module:object`` by name.
    """

    def __init__(self, group: str, lines: Mapping[str, str]) -> None:
        self.group = group
        self._lines = dict(lines)

    def names(self) -> tuple[str, ...]:
        """List every name there is: ours in the order of the lines, then those of installed packages."""
        return tuple(dict.fromkeys([*self._lines, *_entry_points(self.group)]))

    def __contains__(self, name: str) -> bool:
        return name in self.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __getitem__(self, name: str) -> Registered:
        """Return what has this name, or what stands at this ``package.module:object``.

        Raises
        ------
        UnknownName
            If there is no such name, nothing can be imported from that place, or no place is taken (`names_alone`).
        """
        line = self._lines.get(name) or _entry_points(self.group).get(name) or (name if ":" in name else None)
        if line == name and not _places_taken.get():
            raise UnknownName(
                f"this is no registered name but a place ({printable(name, 100)}) whose module would be imported and "
                "run; if you trust whoever made this, allow that with --allow-code, or allow_code=True in Python"
            )
        if line is None:
            alike = get_close_matches(name, self.names(), n=2)
            hint = f"did you mean {' or '.join(alike)}? " if alike else ""
            raise UnknownName(f"no such name; {hint}allowed are {', '.join(self.names())}, or package.module:object")
        return _imported(line)


def whole_class(found: Any, base: type, what: str) -> Any:
    """Return what a registry gave as a class that can be made; nothing of it is called for that.

    Parameters
    ----------
    found
        What stands at a name, which may be anybody's.
    base : type
        Of what it has to be a subclass.
    what : str
        What that is, for people.

    Raises
    ------
    UnknownName
        If it is no such class, or lacks what the base leaves to it.
    """
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UnknownName(f"this is no {what} (a class of {base.__module__})")
    if lacking := getattr(found, "__abstractmethods__", ()):
        raise UnknownName(f"this {what} lacks {', '.join(sorted(lacking))}")
    return found


@cache
def _entry_points(group: str) -> dict[str, str]:
    """What installed packages offer in a group: ``module:object`` by name."""
    return {point.name: point.value for point in sorted(entry_points(group=group), key=lambda point: point.name)}


@cache
def _imported(line: str) -> Any:
    module, _, attribute = line.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # an import runs whatever the module says
        reason = " ".join(str(error).split())
        if not isinstance(error, ImportError | AttributeError | ValueError):
            reason = f"{type(error).__name__}: {reason}"
        raise UnknownName(
            f"{line} can't be imported ({reason}); is its package installed here and on the clients, or its folder on "
            "PYTHONPATH?"
        ) from error
