"""A sitting with small processes in place of runs: what it runs, tells, writes, and leaves for the next one."""

import json
import sys
from dataclasses import replace

import pytest

from fmtda.benchmarking.cells import BenchmarkCell
from fmtda.benchmarking.sitting import BenchmarkRequest, carry_out, plan
from fmtda.protocol.tables import SettingsError

SUMMARY = {
    "metric": "accuracy",
    "accuracy": {"pen": 80.0},
    "average_accuracy": 80.0,
    "plain_source_only": None,
    "uplink_bytes_per_client_round": 100.0,
    "downlink_bytes_per_client_round": 100.0,
    "client_seconds_per_round": 1.0,
    "server_seconds_per_round": 1.0,
}

WRITE_SUMMARY = f"""
import json, pathlib, sys
run = pathlib.Path(sys.argv[1])
run.mkdir(parents=True)
line = {{"round": 0, "phase": "round", "accuracy": {{"pen": {{"global": 80.0, "mean": 80.0}}}}}}
(run / "metrics.jsonl").write_text(json.dumps(line) + "\\n")
(run / "summary.json").write_text(json.dumps({SUMMARY!r}))
"""

FAIL = "raise SystemExit('no memory left')"


class Told:
    """A display that remembers what it was told."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, bool]] = []
        self.ended: list[str] = []
        self.notes: list[str] = []

    def begin(self, name, seconds_left):
        self.begun.append((name, seconds_left is not None))

    def say(self, line=""): ...

    def end(self, text):
        self.ended.append(text)

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def wish(tmp_path):
    """A asked for `source-only` and `dualadapt` with one seed."""
    return BenchmarkRequest("digits", None, "source-only,dualadapt", 1, tmp_path / "out", {"data.targets": "pen"})


@pytest.fixture
def programs(monkeypatch):
    """The Python text that a method's process runs, by the method's name."""
    texts = {"source-only": WRITE_SUMMARY, "dualadapt": FAIL}
    monkeypatch.setattr(
        BenchmarkCell, "command", lambda cell: [sys.executable, "-c", texts[cell.method.name], str(cell.run)]
    )
    return texts


def test_a_cell_that_fails_is_told_and_left_for_the_next_sitting(wish, programs):
    first, second = Told(), Told()
    assert not carry_out(plan(wish), first)
    assert first.begun == [("source-only, seed 0", False), ("dualadapt, seed 0", True)]
    assert first.ended[0].startswith("source-only, seed 0: average 80.0 %, ")
    assert "dualadapt, seed 0: failed, exit status 1" in first.ended[1] and "no memory left" in first.ended[1]
    assert first.notes == []

    programs["dualadapt"] = WRITE_SUMMARY
    assert carry_out(plan(wish), second)
    assert second.notes == ["1 of 2 cells are done already"]
    assert [name for name, _ in second.begun] == ["dualadapt, seed 0"]


def test_results_hold_every_cell_of_the_folder_in_the_order_of_the_methods(wish, programs):
    carry_out(plan(replace(wish, methods="dualadapt")), Told())
    carry_out(plan(replace(wish, methods="source-only")), Told())
    results = json.loads((wish.output / "results.json").read_text())
    assert [method["name"] for method in results["methods"]] == ["source-only", "dualadapt"]
    reached = {cell["method"]: cell["result"] and cell["result"]["average_accuracy"] for cell in results["cells"]}
    assert reached == {"source-only": 80.0, "dualadapt": None}
    table = (wish.output / "table.md").read_text()
    assert "| source-only | 1 | 80.0 |" in table and "Not finished: dualadapt, seed 0 (exit status 1)." in table
    assert (wish.output / "accuracy.svg").exists()


def test_the_command_names_no_place_where_others_read_it(wish):
    asked = replace(wish, config={"pretraining.base-dir": "/some/place", "rounds": "2"}, client_cpus=0.5)
    assert asked.command("DIR") == (
        "fmtda benchmark --data digits --methods source-only,dualadapt --seeds 1 --output DIR "
        "-c pretraining.base-dir=DIR -c rounds=2 --client-cpus 0.5"
    )
    assert str(wish.output) in asked.command()


def test_each_method_gets_its_own_parameters_and_one_that_none_has_is_refused(wish):
    shared = {"dualadapt.components": "3", "rounds": "2"}
    source_only, dualadapt = plan(replace(wish, config=shared)).asked
    assert dualadapt.settings.algorithm.components == 3
    assert source_only.settings.rounds == 2 and "dualadapt.components" not in source_only.run_config
    with pytest.raises(SettingsError, match="fed-mcd.local-steps=3: none of the methods has such a setting"):
        plan(replace(wish, config={"fed-mcd.local-steps": "3"}))
    with pytest.raises(SettingsError, match="dualadapt.component: no such key; did you mean dualadapt.components"):
        plan(replace(wish, config={"dualadapt.component": "3"}))


def test_a_later_sitting_repeats_the_parameters_of_earlier_cells(wish, programs):
    programs["dualadapt"] = WRITE_SUMMARY
    carry_out(plan(replace(wish, methods="dualadapt", config={"dualadapt.components": "3"})), Told())
    later = replace(wish, methods="source-only")
    assert len(plan(replace(later, config={"dualadapt.components": "3"})).earlier) == 1
    with pytest.raises(SettingsError, match="dualadapt.components=10: dualadapt, seed 0 in .* made with .*=3"):
        plan(replace(later, config={}))
