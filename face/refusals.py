"""Ends a command that can't begin or can't go on, with a line that names the cause and with an exit status."""

import os
import sys
from pathlib import Path
from typing import NoReturn

import typer

from fmtda.face.console import say

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
"""Exit statuses."""


def refuse(problem: Exception | str) -> NoReturn:
    """End with what was wrong with the user's input, a line each."""
    for line in str(problem).split("\n"):
        if line:
            say(f"error: {line}", sys.stderr)
    raise typer.Exit(BAD_INPUT)


def stop(problem: Exception, resume: str) -> NoReturn:
    """End a run that began and can't go on, with the line that continues it."""
    say(f"stopped: {problem}", sys.stderr)
    say(f"continue with: {resume}", sys.stderr)
    raise typer.Exit(FAILED)


def writable(output: Path | None, default: Path) -> Path:
    """Give the file to write, or refuse it before any work is done."""
    if output is None:
        return default
    file = output.expanduser().absolute()
    if file.is_dir():
        refuse(f"--output {output}: this is a folder; name a file, such as {output / default.name}")
    if not file.parent.is_dir():
        refuse(f"--output {output}: there is no folder {file.parent}; make it, or name another")
    if not os.access(file.parent, os.W_OK):
        refuse(f"--output {output}: {file.parent} can't be written to; name another folder")
    return file
