"""``fmtda benchmark`` end to end: real cells on embedded digits, gone on with, refused, interrupted."""

import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from real_runs import FEW, FEW_STEPS, words_of
from typer.testing import CliRunner

from fmtda.face.command_line import cli

METHODS = ("--methods", "source-only,dualadapt", "--seeds", "1")
SHARED = {**FEW, "pretraining.steps": 8, "rounds": 1, "data.targets": "pen"}


def command(output: Path, *options: str) -> list[str]:
    """The command line of a benchmark with few steps, also of the methods that the folder has cells of.

    What `options` set themselves is left to them.
    """
    asked = options[options.index("--methods") + 1].split(",") if "--methods" in options else ["dualadapt"]
    methods = {*asked, *(path.name for path in output.glob("cells/*"))}
    own = {f"{name}.{key}": few for name in methods & FEW_STEPS.keys() for key, few in FEW_STEPS[name].items()}
    given = {pair.partition("=")[0] for flag, pair in itertools.pairwise(options) if flag == "-c"}
    few = words_of({key: value for key, value in {**SHARED, **own}.items() if key not in given})
    return [sys.executable, "-m", "fmtda", "benchmark", "--output", str(output), *few, *options]


def benchmark(output: Path, *options: str) -> str:
    """Carry a benchmark out; what it printed."""
    done = subprocess.run(command(output, *options), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def invoke(output: Path, *options: str):
    """The same in this process: for what runs no cell."""
    return CliRunner().invoke(cli, command(output, *options)[3:])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished benchmark of two cells."""
    output = tmp_path_factory.mktemp("benchmark") / "out"
    printed = benchmark(output, *METHODS)
    assert "source-only, seed 0: begins, cell 1 of 2" in printed
    assert "dualadapt, seed 0: begins, cell 2 of 2; about" in printed
    return output


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """A copy of it to do things to."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


def cell(output: Path, method: str) -> Path:
    """A cell's folder."""
    return output / "cells" / method / "seed-0"


def test_results_hold_what_the_runs_summaries_say(finished):
    results = json.loads((finished / "results.json").read_text())
    assert [method["name"] for method in results["methods"]] == ["source-only", "dualadapt"]
    assert {"commit", "machine", "versions", "when", "command"} <= results.keys()
    assert results["machine"]["cores"] >= 1 and results["machine"]["memory_gib"] > 0
    for record in results["cells"]:
        run = cell(finished, record["method"]) / "run"
        summary = json.loads((run / "summary.json").read_text())
        assert {key: record["result"][key] for key in summary if key != "confusion"} == {
            key: value for key, value in summary.items() if key != "confusion"
        }
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [line["round"] for line in record["result"]["accuracy_by_round"]] == [line["round"] for line in lines]
        assert record["result"]["accuracy_by_round"][-1]["accuracy"] == summary["accuracy"]
        assert record["process_seconds"] > summary["wall_seconds"]
    row = next(line for line in (finished / "table.md").read_text().splitlines() if line.startswith("| dualadapt "))
    average = results["cells"][1]["result"]["average_accuracy"]
    assert f"| {average:.1f} |" in row
    assert {file.name for file in finished.glob("*.svg")} == {"accuracy.svg", "bytes.svg", "rounds.svg"}


def test_nothing_written_for_others_names_a_path_of_this_machine(finished):
    files = [*finished.glob("*.*"), *finished.glob("cells/*/*/cell.json")]
    assert {"results.json", "table.md", "accuracy.svg", "cell.json"} <= {file.name for file in files}
    for file in files:
        assert str(finished.parent) not in file.read_text(), file


def test_methods_of_a_seed_share_the_pre_trained_base(finished):
    assert "taken from" not in (cell(finished, "source-only") / "log.txt").read_text()
    assert "pre-training: taken from" in (cell(finished, "dualadapt") / "log.txt").read_text()
    one, other = (
        json.loads((cell(finished, name) / "cell.json").read_text())["result"] for name in ("source-only", "dualadapt")
    )
    assert one["source_only"] == other["source_only"]


def test_a_second_call_runs_nothing_and_a_removed_cell_runs_alone(copied):
    before = {path: path.read_bytes() for path in copied.rglob("cell.json")}
    assert "2 of 2 cells are done already" in invoke(copied, *METHODS).output
    assert {path: path.read_bytes() for path in copied.rglob("cell.json")} == before
    shutil.rmtree(cell(copied, "dualadapt"))
    printed = benchmark(copied, *METHODS)
    assert "dualadapt, seed 0: begins" in printed and "source-only, seed 0: begins" not in printed
    for path, content in before.items():
        old, new = json.loads(content), json.loads(path.read_text())
        assert new["result"]["accuracy"] == old["result"]["accuracy"]
        assert (new == old) == (new["method"] == "source-only")


def test_a_cell_cut_short_goes_on_from_its_checkpoint(copied):
    record = cell(copied, "source-only") / "cell.json"
    old = json.loads(record.read_text())
    record.write_text(json.dumps({**old, "result": None, "process_seconds": None}))
    (cell(copied, "source-only") / "run" / "summary.json").unlink()
    assert "to be continued" in invoke(copied, *METHODS, "--dry-run").output
    benchmark(copied, *METHODS)
    new = json.loads(record.read_text())
    assert new["resumed"]
    assert new["result"]["accuracy"] == old["result"]["accuracy"]
    assert "continuing after round 1" in (cell(copied, "source-only") / "log.txt").read_text()


@pytest.mark.parametrize(
    ("method", "key", "value", "made_with", "of"),
    [
        ("fedavg-self-training", "data.hold-out", "0.2", "0.1", "(source-only|dualadapt), seed 0"),
        ("dualadapt", "dualadapt.self-training.confidence", "0.5", "0.9", "dualadapt, seed 0"),
    ],
)
def test_cells_of_other_settings_are_refused_by_name(method, key, value, made_with, of, finished):
    result = invoke(finished, "--methods", method, "--seeds", "1", "-c", f"{key}={value}")
    assert result.exit_code == 2
    message = " ".join(result.stderr.split())
    assert f"{key}={value}: " in message and f"was made with {key}={made_with}" in message
    assert re.search(of, message)


def test_a_dry_run_lists_the_cells_and_an_estimate_and_writes_nothing(finished, tmp_path):
    result = invoke(finished, "--methods", "source-only,dualadapt", "--seeds", "2", "--dry-run")
    assert result.exit_code == 0
    states = {
        line.split("│")[1].strip(): line.split("│")[-2].strip() for line in result.output.splitlines() if "seed" in line
    }
    assert states == {
        "source-only, seed 0": "done",
        "dualadapt, seed 0": "done",
        "source-only, seed 1": "to be run",
        "dualadapt, seed 1": "to be run",
    }
    assert "2 of 4 cells to run; about" in result.output
    assert "no estimate" in invoke(tmp_path / "new", *METHODS, "--dry-run").output
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--methods", "fedsgd"), ("fedsgd", "dualadapt-paper", "ablation")),
        (("-c", "inputs.scenery=false"), ("inputs.scenery", "--methods")),
        (("-c", "seed=3"), ("seed", "--help")),
        (("-c", "rounds=none"), ("rounds=none",)),
        (("--data", "cifar"), ("cifar", "digits")),
        (("--data", "digit-five", "-c", "data.targets=svhn"), ("data-dir",)),
        (("--client-gpus", "99"), ("--client-gpus 99",)),
    ],
)
def test_bad_input_is_refused_before_anything_runs(options, named, tmp_path):
    result = invoke(tmp_path / "out", *options)
    assert result.exit_code == 2, result.output
    for text in named:
        assert text in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("")
    assert "name a new folder" in invoke(tmp_path).stderr
    assert "this is a file" in invoke(tmp_path / "thesis.txt").stderr


def test_help_teaches_with_examples():
    assert "fmtda benchmark --output out" in " ".join(CliRunner().invoke(cli, ["benchmark", "--help"]).output.split())


def test_ctrl_c_ends_the_cell_too_and_says_how_to_go_on(tmp_path):
    output = tmp_path / "out"
    options = ("--methods", "source-only", "--seeds", "1", "-c", "rounds=1000")
    process = subprocess.Popen(
        command(output, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 200
    while not list((cell(output, "source-only") / "run" / "checkpoints").glob("round-*")):
        assert process.poll() is None and time.monotonic() < deadline, "the cell did not begin"
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"continue with: fmtda benchmark --data digits --methods source-only --seeds 1 --output {output}" in said
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
