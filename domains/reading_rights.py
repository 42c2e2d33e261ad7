"""Tells what is missing from what is there and may not be read: who reads less than there is, is told so.

`Path.glob` passes over a folder that may not be read, and safetensors calls such a file missing.
"""

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from fmtda.protocol.tables import SettingsError


class Unreadable(SettingsError):
    """Raised where something is there and this account may not read it; the message says what to do."""


@contextmanager
def rights_to_read(path: Path) -> Iterator[None]:
    """Make an `Unreadable` of whatever the system refuses to this account in here.

    Parameters
    ----------
    path
        What is read, where the system's error names nothing.
    """
    try:
        yield
    except PermissionError as error:
        refused = _first_refused(Path(error.filename) if isinstance(error.filename, str) else path)
        account, owner = _name_of(os.geteuid()), _owner_of(refused)
        raise Unreadable(
            f"{refused}: the account {account} may not read it, so nothing was done with the rest; do this as {owner}, "
            f"or have {owner} give the right to read, as by: setfacl -R -m u:{account}:rX {refused}"
        ) from None


def check_readable(file: Path) -> None:
    """Open a file, for a reader that doesn't say why it can't.

    Raises
    ------
    Unreadable
        If it is there, and this account may not read it.
    OSError
        For any other reason.
    """
    with rights_to_read(file), file.open("rb"):
        return


def matching(folder: Path, pattern: str) -> list[Path]:
    """List, sorted, what is there below a folder by a pattern such as ``*/*/name``; empty where the folder is missing.

    Raises
    ------
    Unreadable
        If the folder, or one on the way to a match, may not be read.
    """
    first, _, rest = pattern.partition("/")
    try:
        with rights_to_read(folder):
            names = sorted(name for name in os.listdir(folder) if fnmatchcase(name, first))
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [folder / name for name in names]
    return [below for each in found for below in matching(each, rest)] if rest else found


def _first_refused(path: Path) -> Path:
    """The folder on the way that this account may not enter; else the path itself."""
    effective = os.access in os.supports_effective_ids
    for folder in reversed(path.absolute().parents):
        if not os.access(folder, os.X_OK, effective_ids=effective):
            return folder
    return path


def _owner_of(path: Path) -> str:
    try:
        return _name_of(path.stat().st_uid)
    except OSError:
        return "its owner"


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:  # a number without a name, as in a container
        return str(user)
