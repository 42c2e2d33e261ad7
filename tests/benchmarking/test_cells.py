"""A cell's life with a small process in place of a run: done, failed, cut short, not to be mixed."""

import json
import sys
from collections.abc import Mapping

import psutil
import pytest

from fmtda.benchmarking.cells import BenchmarkCell, CellFailed, cells_in, write_whole
from fmtda.benchmarking.methods import METHODS
from fmtda.protocol.tables import Scalar, SettingsError

REACHED = {"average_accuracy": 80.0, "accuracy": {"pen": 80.0}, "confusion": {"pen": [1]}}


@pytest.fixture
def cell_with(tmp_path, monkeypatch):
    """A cell of `dualadapt` on the embedded digits whose process runs this Python text; a dictionary is its config."""

    def make(program: str = "", method: str = "dualadapt", config: Mapping[str, Scalar] | None = None) -> BenchmarkCell:
        config = {"data.name": "digits", **(config or {})}
        cell = BenchmarkCell(METHODS[method], 0, config, tmp_path / "cells" / method / "seed-0")
        if program:
            monkeypatch.setattr(cell, "command", lambda: [sys.executable, "-c", program, str(cell.run)])
        return cell

    return make


WRITE_SUMMARY = f"""
import json, pathlib, sys
run = pathlib.Path(sys.argv[1])
run.mkdir(parents=True, exist_ok=True)
line = {{"round": 0, "phase": "round", "accuracy": {{"pen": {{"global": 50.0, "mean": 60.0}}}}}}
(run / "metrics.jsonl").write_text(json.dumps(line) + "\\n")
(run / "summary.json").write_text(json.dumps({REACHED!r}))
print("all is well")
"""


def test_what_a_process_reached_is_kept_with_settings_and_provenance(cell_with):
    cell_with(WRITE_SUMMARY).execute(lambda: None)
    cell = cell_with()
    assert cell.done
    record = cell.record
    assert record["result"]["average_accuracy"] == 80.0
    assert "confusion" not in record["result"]
    assert record["result"]["accuracy_by_round"] == [{"round": 0, "phase": "round", "accuracy": {"pen": 60.0}}]
    assert record["settings"]["strategy"] == "dualadapt" and "data.dir" not in record["settings"]
    assert record["process_seconds"] > 0 and record["machine"] and record["versions"]["torch"]
    assert cell.last_lines(1) == ["all is well"]


@pytest.mark.parametrize("ending", ["sys.exit(3)", "raise ValueError('no such thing')"])
def test_a_failure_is_kept_with_its_last_words_and_the_cell_is_not_done(cell_with, ending):
    with pytest.raises(CellFailed) as failed:
        cell_with(f"import sys\nfor n in range(9): print('line', n, flush=True)\n{ending}").execute(lambda: None)
    assert "exit status" in str(failed.value)
    assert len(failed.value.lines) == 5
    assert any("line 8" in line for line in failed.value.lines)
    cell = cell_with()
    assert not cell.done
    assert cell.record["failure"] == str(failed.value)


def test_a_process_that_ends_well_without_a_summary_has_failed(cell_with):
    with pytest.raises(CellFailed, match="exit status 0"):
        cell_with("print('nothing done')").execute(lambda: None)


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print("up", flush=True)
time.sleep(60)
"""


def test_an_interrupt_ends_even_processes_that_will_not(cell_with, monkeypatch):
    monkeypatch.setattr("fmtda.benchmarking.cells.SECONDS_TO_STOP", 0.5)
    cell = cell_with(STUBBORN)
    children = []

    def interrupt():
        if cell.last_lines(1) == ["up"]:
            children.extend(psutil.Process().children(recursive=True))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cell.execute(interrupt)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert len(children) == 2 and not alive
    assert not cell_with().done


def test_a_run_that_ended_while_nobody_watched_is_taken_as_it_is(cell_with):
    cell = cell_with(WRITE_SUMMARY)
    cell.execute(lambda: None)
    write_whole(cell.folder / "cell.json", json.dumps({**cell.record, "result": None}))
    again = cell_with("raise SystemExit('must not run')")
    again.execute(lambda: None)
    assert again.done
    assert again.record["process_seconds"] is None


def test_a_run_in_which_a_target_has_no_result_is_run_anew_in_the_next_sitting(cell_with):
    without_a_target = WRITE_SUMMARY.replace("80.0, 'accuracy'", "None, 'accuracy'")
    assert without_a_target != WRITE_SUMMARY
    with pytest.raises(CellFailed):
        cell_with(without_a_target).execute(lambda: None)
    assert cell_with().record["failure"] == "a target without a result"
    again = cell_with(WRITE_SUMMARY)
    again.execute(lambda: None)
    assert again.done
    assert not again.record["resumed"] and again.record["process_seconds"] > 0


def test_only_a_federated_run_with_a_checkpoint_is_continued(cell_with):
    for method, continued in (("dualadapt", True), ("mcd", False)):
        with pytest.raises(CellFailed):
            cell_with("raise SystemExit(1)", method).execute(lambda: None)
        cell = cell_with(method=method)
        assert not cell.resumable
        (cell.run / "checkpoints" / "round-000001").mkdir(parents=True)
        (cell.run / "config.toml").write_text("")
        assert cell.resumable == continued
        assert ("--resume" in cell.command()) == continued


def test_without_a_checkpoint_a_cell_begins_anew(cell_with):
    with pytest.raises(CellFailed):
        cell_with("raise SystemExit(1)").execute(lambda: None)
    cell = cell_with(WRITE_SUMMARY)
    cell.run.mkdir()
    (cell.run / "leftover").write_text("")
    cell.execute(lambda: None)
    assert not (cell.run / "leftover").exists()


def test_other_settings_are_refused_and_paths_and_patience_are_not_settings(cell_with, tmp_path):
    def refuse(method: str = "dualadapt", **config) -> None:
        cell_with(method=method, config=config).refuse_other_settings()

    cell_with(WRITE_SUMMARY, config={"rounds": 2}).execute(lambda: None)
    refuse(**{"rounds": 2, "timeout": 9.0, "pretraining.base-dir": str(tmp_path)})
    # What is another algorithm's own, or switched off, decides nothing.
    cell_with(WRITE_SUMMARY, "fed-mcd", {"dualadapt.robust-share": 0.3}).execute(lambda: None)
    refuse("fed-mcd", **{"dualadapt.robust-share": 0.4})
    cell_with(WRITE_SUMMARY, "dualadapt-paper", {"dualadapt.batch-norm.share": 0.3}).execute(lambda: None)
    refuse("dualadapt-paper", **{"dualadapt.batch-norm.share": 0.4})
    with pytest.raises(SettingsError, match="dualadapt.client-steps=3: dualadapt-paper, seed 0 in .*"):
        refuse("dualadapt-paper", **{"dualadapt.client-steps": 3})
    with pytest.raises(SettingsError, match="fed-mcd.local-steps=3: fed-mcd, seed 0 in .*"):
        refuse("fed-mcd", **{"fed-mcd.local-steps": 3})
    with pytest.raises(SettingsError, match="rounds=5: dualadapt, seed 0 in .* was made with rounds=2"):
        refuse(rounds=5)


def test_a_cell_of_before_the_tables_is_left_as_it_is(cell_with):
    cell_with(WRITE_SUMMARY, config={"rounds": 2}).execute(lambda: None)
    file = cell_with().folder / "cell.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"settings": {"data": "digits", "rounds": 2}}))
    cell = cell_with(config={"rounds": 5})
    cell.refuse_other_settings()
    assert cell.done


def test_commands_name_the_program_and_what_makes_the_method(cell_with):
    federated = cell_with(method="dualadapt-paper", config={"rounds": 2}).command()
    assert federated[1:4] == ["-m", "fmtda", "simulate"]
    assert {"data.name=digits", "rounds=2", "preset=paper", "seed=0"} <= set(federated)
    reference = cell_with(method="mcd").command()
    assert reference[1:4] == ["-m", "fmtda.benchmarking.centralised", "mcd"]
    assert "--output" in reference and "data.name=digits" in reference
    shown = cell_with(method="mcd", config={"pretraining.base-dir": "/some/place"}).shown_command()
    program = "python -m fmtda.benchmarking.centralised mcd"
    assert shown.startswith(f"{program} -c data.name=digits -c pretraining.base-dir=DIR")


def test_cells_of_earlier_sittings_are_found(cell_with, tmp_path):
    cell_with(WRITE_SUMMARY).execute(lambda: None)
    stranger = tmp_path / "cells" / "no-such-method" / "seed-0"
    stranger.mkdir(parents=True)
    (stranger / "cell.json").write_text("{}")
    assert [cell.name for cell in cells_in(tmp_path, {"data.name": "digits"}, ())] == ["dualadapt, seed 0"]
