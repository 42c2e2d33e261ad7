"""Lets one process at a time work in a run directory: two would mix their rounds, and spoil both."""

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from fmtda.protocol.printable import printable
from fmtda.protocol.tables import SettingsError

LOCK = ".lock"
"""The file that is locked, and stays; the system unlocks it when its process ends, however that ends."""

OWNER = ".owner.json"
"""Who holds the lock, for people; left behind by a process that was killed."""


@contextmanager
def owned(path: Path) -> Iterator[str]:
    """Own a run directory as long as this lasts; it is there already.

    Yields
    ------
    str
        Who held it last without coming to an end, for people; empty where nobody did.

    Raises
    ------
    SettingsError
        If another process works in it, on this machine or on one that shares the folder.
    """
    lock = _locked(path)
    try:
        before = _holder(path)
        me = {"process": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        (path / OWNER).write_text(json.dumps(me), encoding="utf-8")
        yield before
    finally:
        (path / OWNER).unlink(missing_ok=True)
        lock.release()


def refuse_owned(path: Path) -> None:
    """Refuse a run directory in which another process works, before anything costly begins.

    Raises
    ------
    SettingsError
        Saying which process.
    """
    if (path / LOCK).exists():
        _locked(path).release()


def _locked(path: Path) -> BaseFileLock:
    """The lock, taken."""
    lock = FileLock(path / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise SettingsError(
            f"output={path}: {_holder(path) or 'another process'} works in this run directory; "
            "wait for its end, or name another folder"
        ) from None
    except (OSError, NotImplementedError) as error:
        raise SettingsError(f"output={path}: the folder can't be locked ({error}); name one that can") from None
    return lock


def _holder(path: Path) -> str:
    """Who says to hold the lock."""
    try:
        said = json.loads((path / OWNER).read_text(encoding="utf-8"))
        return printable(f"process {said['process']} on {said['host']}, since {said['since']},")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
