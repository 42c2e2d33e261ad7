"""Small finished runs in seconds: the real server and the real clients, without Flower's and Ray's processes."""

from pathlib import Path

from fmtda.server.startup import effective_settings
from fmtda.simulation.in_process import run_in_process
from tests.conftest import BLINK


def finish(output: Path, **changes) -> Path:
    """A run of few steps in the folder, ended; keyword arguments change keys (``rounds=1``)."""
    given = {key.replace("_", "-"): value for key, value in changes.items()}
    return run_in_process(effective_settings({**BLINK, "rounds": 1, **given, "output": str(output)})).path
