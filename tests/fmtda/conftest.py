"""One finished run that several end-to-end tests look at."""

from pathlib import Path

import pytest
from real_runs import simulate


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> tuple[Path, str]:
    """One finished run of the default preset with `personalise`, and what it printed."""
    run = tmp_path_factory.mktemp("finished") / "run"
    return run, simulate("--rounds", 2, "--output", run, "-c", "personalise=true").stdout
