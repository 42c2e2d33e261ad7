"""What the server's tests share: a federation in this process, and a progress display that remembers."""

from collections.abc import Mapping

import pytest

from fmtda.protocol.settings import AdaptationSettings
from fmtda.protocol.tables import Scalar
from fmtda.simulation.in_process import InProcessGrid


class Silence:
    """A progress display that remembers its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def stage(self, name, total) -> None: ...

    def advance(self, done) -> None: ...

    def round_done(self, server_round, rounds, accuracy) -> None: ...

    def note(self, text) -> None:
        self.notes.append(text)


@pytest.fixture
def grid_of():
    """`InProcessGrid`, for a test to build one."""
    return InProcessGrid


@pytest.fixture(autouse=True)
def few_held_out_draws(monkeypatch):
    """What is tested here does not depend on their number, the seconds do."""
    monkeypatch.setattr("fmtda.generative.training.HELD_OUT_DRAWS", 1)


@pytest.fixture
def silence():
    return Silence()


@pytest.fixture
def small_run(settings_of, tmp_path):
    """Settings of three clients of two domains with few examples; a dictionary of dotted keys changes some."""

    def make(changes: Mapping[str, Scalar] | None = None) -> AdaptationSettings:
        few = {"data.targets": "blend,pen", "clients": 3, "rounds": 1, "data.target-limit": 40, "data.source-limit": 60}
        few |= {"inputs.randomise": False, "inputs.scenery": False, "output": str(tmp_path / "run")}
        return settings_of({**few, **(changes or {})})

    return make
