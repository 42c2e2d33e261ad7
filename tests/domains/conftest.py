"""Every test here has a cache of its own, and finds the real data where there is some."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("FMTDA_CACHE", str(folder))
    return folder


@pytest.fixture
def real_data():
    folder = Path(os.environ.get("FMTDA_DATA_DIR") or Path(__file__).parents[2].parent / "shared" / "data")
    if not (folder / "MNIST").is_dir():
        pytest.skip(f"no real data in {folder}; set FMTDA_DATA_DIR")
    return folder
