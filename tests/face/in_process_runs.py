"""Small finished runs in seconds: the real server and the real clients, without Flower's and Ray's processes."""

from pathlib import Path

from fmtda.server.app import run
from fmtda.server.startup import effective_settings
from tests.conftest import BLINK
from tests.server.conftest import InProcessGrid, Silence


def finish(output: Path, **changes) -> Path:
    """A run of few steps in the folder, ended; keyword arguments change keys (``rounds=1``)."""
    given = {key.replace("_", "-"): value for key, value in changes.items()}
    settings = effective_settings({**BLINK, "rounds": 1, **given, "output": str(output)})
    run(InProcessGrid.simulated(settings.supernodes), settings, Silence())
    return output
