"""Reads the options ``-c KEY=VALUE`` and ``--config FILE``, by which a command takes any setting.

A file holds settings as TOML. Its tables are flattened to dotted keys, as Flower flattens a run config::

    rounds = 5                      # rounds

    [dualadapt]
    components = 5                  # dualadapt.components

Those settings that a command has an option of its own for, in more commands than one, stand here too.

Commands put `ConfigFile` and `SettingPairs` into their signatures and hand on what they get to `settings_given`.
"""

import datetime
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from fmtda.face.refusals import refuse
from fmtda.protocol.tables import Scalar, SettingsError, key_and_value

ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="TOML file of settings; all other options win over it")
]
SettingPairs = Annotated[
    list[str] | None, typer.Option("--set", "-c", metavar="KEY=VALUE", help="any setting; repeatable")
]

Rounds = Annotated[int | None, typer.Option(help="federated rounds")]
Seed = Annotated[int | None, typer.Option(help="root of every random draw")]
NewRun = Annotated[Path | None, typer.Option(help="run directory; default: a new one below ./runs")]
ResumedRun = Annotated[Path | None, typer.Option(help="continue the run in this directory")]
Data = Annotated[
    str | None,
    typer.Option(help="family of domains, see `fmtda data list`, or package.module:Class; default: digits, embedded"),
]
DataDir = Annotated[Path | None, typer.Option(help="folder with the data files; embedded data needs none")]

DEEPEST = 5
"""Tables in tables that a file may have; ours have three."""

ALLOWED = "text, a whole number, a number, true and false"


def settings_given(
    file: Path | None, pairs: Sequence[str] | None, named: Mapping[str, Scalar | None] | None = None
) -> dict[str, Scalar]:
    """Put together what the user set, or refuse it in one line.

    Parameters
    ----------
    file
        Given with ``--config``.
    pairs
        Given with ``-c``, each as KEY=VALUE; they win over the file.
    named
        Values of a command's other options by their key, None for those not given; they win over both.

    Returns
    -------
    dict
        Values by dotted key; those of ``-c`` are text.
    """
    try:
        from_file = read_config_file(file) if file else {}
        return {
            **from_file,
            **read_pairs(pairs or ()),
            **{key: value for key, value in (named or {}).items() if value is not None},
        }
    except SettingsError as error:
        refuse(error)


def read_pairs(pairs: Sequence[str]) -> dict[str, Scalar]:
    """Read what was given with ``-c``, each as KEY=VALUE.

    Raises
    ------
    SettingsError
        If one has no key or no equals sign, or a key comes twice.
    """
    read: dict[str, Scalar] = {}
    for key, value in map(key_and_value, pairs):
        if key in read:
            raise SettingsError(f"-c {key}={read[key]} and -c {key}={value}: a setting has one value; leave one out")
        read[key] = value
    return read


def read_config_file(file: Path) -> dict[str, Scalar]:
    """Read a TOML file of settings.

    Returns
    -------
    dict
        Values by dotted key.

    Raises
    ------
    SettingsError
        If the file can't be read, is not TOML in UTF-8, or holds what no setting can be; the key is named.
    """
    try:
        table = tomllib.loads(file.expanduser().read_bytes().decode())
    except OSError as error:
        raise SettingsError(
            f"--config {file}: can't be read ({error.strerror}); name a TOML file, or give a setting with -c KEY=VALUE"
        ) from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"--config {file}: byte {error.start} is not UTF-8; store the file as UTF-8") from None
    except ValueError as error:  # tomllib's own, and Python's for numbers that are too long
        raise SettingsError(f"--config {file}: not TOML: {error}; lines are KEY = VALUE, text in quotes") from None
    except RecursionError:
        raise SettingsError(f"--config {file}: nested too deeply; a setting is at most three tables deep") from None
    return _flat(table, file, "")


def _flat(table: Mapping[str, object], file: Path, prefix: str) -> dict[str, Scalar]:
    flat: dict[str, Scalar] = {}
    for name, value in table.items():
        key = f"{prefix}{name}"
        if key.count(".") > DEEPEST:
            raise SettingsError(f"--config {file}: {key[:60]}: nested too deeply; a setting is in a few tables at most")
        below = _flat(value, file, f"{key}.") if isinstance(value, dict) else {key: _scalar(value, file, key)}
        if twice := flat.keys() & below.keys():
            raise SettingsError(f"--config {file}: {min(twice)} is given twice, in quotes and by its table")
        flat |= below
    return flat


def _scalar(value: object, file: Path, key: str) -> Scalar:
    if isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list):
        raise SettingsError(
            f'--config {file}: {key} is a list; allowed are {ALLOWED}; several names are one text, as in "svhn,usps"'
        )
    kind = "a time" if isinstance(value, datetime.time) else "a date"
    raise SettingsError(f"--config {file}: {key} is {kind}; allowed are {ALLOWED}")
