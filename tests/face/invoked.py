"""The ``fmtda`` command in this process, for what starts no federation: bad input above all."""

from click.testing import Result
from typer.testing import CliRunner

from fmtda.face.command_line import cli


def invoke(*words: object) -> Result:
    """What the command line does and says."""
    return CliRunner().invoke(cli, list(map(str, words)))


def refused(*words: object) -> str:
    """What the command line says to bad input, in one line: an error, no traceback, exit status 2."""
    result = invoke(*words)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert "error" in result.stderr.lower()
    return " ".join(result.stderr.split())
