"""A domain that joins a finished run: a new directory goes on, the old one stays, names and data of the others too."""

import json

import pytest
import torch

from fmtda.protocol.tables import SettingsError
from fmtda.server import checkpoints
from fmtda.server.app import run
from fmtda.server.branching import branch, with_joining

pytestmark = pytest.mark.usefixtures("few_source_examples")


@pytest.fixture
def settings(small_run):
    return small_run()


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_domain_joins_a_finished_run_which_stays_as_it_is(settings, grid_of, silence, tmp_path):
    run(grid_of.simulated(3), settings, silence)
    before = content(tmp_path / "run")
    joined = with_joining(tmp_path / "run", "street", 2, 1).changed(
        {"output": str(tmp_path / "joined"), "resume": True}
    )
    assert (joined.simulation.late_round, joined.rounds, joined.clients, joined.supernodes) == (2, 3, 3, 5)
    old, new = settings.simulated_names(3), joined.simulated_names(5)
    assert new == [*old, "street/0000", "street/0001"]
    branch(tmp_path / "run", joined)
    directory = run(grid_of.simulated(joined.supernodes), joined, silence)
    assert content(tmp_path / "run") == before
    lines = directory.metrics()
    assert [line["round"] for line in lines] == [0, 1, 2, 3]
    assert sorted(lines[2]["newcomers"]) == ["street/0000", "street/0001"]
    assert set(json.loads((directory.path / "summary.json").read_text())["accuracy"]) == {"blend", "pen", "street"}

    # the others did in round 2 what they would have done without it
    alone = settings.changed({"rounds": 2, "resume": True})
    without = run(grid_of.simulated(3), alone, silence).metrics()[2]
    assert {name: lines[2]["clients"][name]["train"]["cross-entropy"] for name in old} == {
        name: without["clients"][name]["train"]["cross-entropy"] for name in old
    }


def test_what_cant_be_copied_is_named_and_nothing_is_left_behind(settings, grid_of, silence, tmp_path):
    run(grid_of.simulated(3), settings, silence)
    joined = with_joining(tmp_path / "run", "street", 1, 1).changed(
        {"output": str(tmp_path / "joined"), "resume": True}
    )
    (tmp_path / "run" / "uploads" / "broken").symlink_to("nowhere")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SettingsError, match=r"joined: the run can't be copied there \(.*No such file.*\); make room"):
        branch(tmp_path / "run", joined)
    assert sorted(tmp_path.iterdir()) == before


def test_a_joined_run_can_be_joined_again(settings, grid_of, silence, tmp_path):
    run(grid_of.simulated(3), settings, silence)
    first = with_joining(tmp_path / "run", "street", 1, 1).changed({"output": str(tmp_path / "first"), "resume": True})
    branch(tmp_path / "run", first)
    with pytest.raises(SettingsError, match="street joins in round 2 only, and 1 are done"):
        with_joining(tmp_path / "first", "fonts", 1, 1)
    run(grid_of.simulated(4), first, silence)
    second = with_joining(tmp_path / "first", "fonts", 1, 1).changed(
        {"output": str(tmp_path / "second"), "resume": True}
    )
    assert second.simulated_names(5)[:4] == first.simulated_names(4)
    branch(tmp_path / "first", second)
    lines = run(grid_of.simulated(5), second, silence).metrics()
    assert sorted(lines[4]["newcomers"]) == ["fonts/0000", "street/0000"]


def test_a_branch_has_the_last_whole_round_and_nothing_after_it(settings, grid_of, silence, tmp_path):
    run(grid_of.simulated(3), settings, silence)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"round": 7, "pha')
    joined = with_joining(tmp_path / "run", "street", 1, 1).changed({"output": str(tmp_path / "joined")})
    branch(tmp_path / "run", joined)
    models = [checkpoints.latest(tmp_path / name / "checkpoints").model for name in ("run", "joined")]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    assert not (tmp_path / "joined" / "summary.json").exists()
    assert len((tmp_path / "joined" / "metrics.jsonl").read_text().splitlines()) == 2


def test_what_cannot_be_joined_is_refused_with_a_reason(settings, grid_of, silence, tmp_path):
    with pytest.raises(SettingsError, match="no run here"):
        with_joining(tmp_path, "street", 1, 1)
    run(grid_of.simulated(3), settings, silence)
    with pytest.raises(SettingsError, match="--domain pen: this run has it already, beside blend, pen"):
        with_joining(tmp_path / "run", "pen", 1, 1)
