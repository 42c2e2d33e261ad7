"""Finished runs that several end-to-end tests look at."""

from pathlib import Path

import pytest
from real_runs import TINY, generate, simulate


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> tuple[Path, str]:
    """One finished run of the default preset with `personalise`, and what it printed."""
    run = tmp_path_factory.mktemp("finished") / "run"
    return run, simulate("--rounds", 2, "--output", run, "-c", "personalise=true").stdout


@pytest.fixture(scope="session")
def generated(tmp_path_factory) -> tuple[Path, str]:
    """One run of a tiny DDPM over two clients, finished, gone on with for another round, and what that printed."""
    run = tmp_path_factory.mktemp("generated") / "run"
    generate("ddpm", *TINY, "--clients", 2, "--rounds", 1, "--output", run)
    return run, generate("--resume", run, "--rounds", 2).stdout
