"""Small finished runs in seconds: the real server and the real clients, without Flower's and Ray's processes."""

from collections.abc import Mapping
from pathlib import Path

from fmtda.protocol.tables import Scalar
from fmtda.server.startup import effective_settings
from fmtda.simulation.in_process import run_in_process
from tests.conftest import blink


def finish(output: Path, changes: Mapping[str, Scalar]) -> Path:
    """A run of few steps in the folder, ended; the dictionary changes settings (``{"rounds": 2}``)."""
    return run_in_process(effective_settings({**blink({"rounds": 1, **changes}), "output": str(output)})).path
