"""Makes the command lines of the measuring programs: their help, ``-c KEY=VALUE`` and how bad input ends."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fmtda.domains.examples import DataError
from fmtda.protocol.printable import printable
from fmtda.protocol.tables import SettingsError, key_and_value

BAD_INPUT = 2
"""Exit status, as argparse's own."""


def command_line(description: str, program: str | None = None) -> argparse.ArgumentParser:
    """Make a parser whose help is a module's docstring, with ``-c``, which comes out as the dict `config`.

    Parameters
    ----------
    description
        Shown as it stands.
    program
        What the user calls; by default the file's name.
    """
    parser = argparse.ArgumentParser(
        prog=program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        *("-c", "--set"),
        dest="config",
        action=_RunConfig,
        default={},
        metavar="KEY=VALUE",
        help="any setting, as of fmtda simulate; may be given again",
    )
    return parser


@contextmanager
def refusals() -> Iterator[None]:
    """End the program with one line and status 2 where settings or data are refused."""
    try:
        yield
    except (SettingsError, DataError) as error:
        for line in str(error).split("\n"):
            print(f"fmtda: error: {printable(line, 4000)}", file=sys.stderr)
        sys.exit(BAD_INPUT)


class _RunConfig(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        try:
            key, value = key_and_value(values)
        except SettingsError as error:
            parser.error(str(error))
        setattr(namespace, self.dest, {**getattr(namespace, self.dest), key: value})
