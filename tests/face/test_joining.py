"""A client that joins late, with real processes: a SuperNode that connects in mid-run, and ``fmtda join``."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from in_process_runs import finish
from real_nodes import Deployment, needs_nginx
from real_runs import overrides, simulate, small
from rich.console import Console
from typer.testing import CliRunner

from fmtda.face.command_line import cli
from fmtda.face.report.adaptation import sentence
from fmtda.face.report.page import rendered
from fmtda.face.report.runs import Run
from fmtda.face.run_table import print_run

CLIENTS = ["blend", "pen", "street"]
NEW = "street/0000"


def lines(run):
    path = run / "metrics.jsonl"
    return [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []


def printed(run):
    console = Console(width=200, record=True, file=open("/dev/null", "w"))
    print_run(console, json.loads((run / "summary.json").read_text()), run)
    return console.export_text()


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """A finished run in which `street` joined late."""
    few = {
        "data.target-limit": 60,
        "data.source-limit": 100,
        "data.targets": "blend,pen,street",
        "simulation.late": "street",
        "simulation.late-round": 2,
    }
    return finish(tmp_path_factory.mktemp("joined") / "run", {**few, "rounds": 3})


def test_the_table_tells_who_was_near_and_what_was_reached_after_how_many_rounds(joined):
    text = printed(joined)
    assert "joined late: accuracy in percent after so many rounds" in text
    assert NEW in text and "blend/0000 (0." in text
    assert "average of those there from the start" in text


def test_the_report_copes_with_a_domain_that_came_late(joined):
    page = rendered([joined])
    assert "Joined late" in page
    assert f"Late there joined {NEW} in round 2." in page
    command = Run.read(joined).command
    assert "-c simulation.late=street -c simulation.late-round=2" in command
    assert "-c strategy" not in command and "standardise" not in command


def test_the_gain_is_told_of_the_domains_that_were_measured_before(joined):
    run = Run.read(joined)
    before, reached = run.lines[0]["source_only"], run.reached
    assert (set(before), set(reached)) == ({"blend", "pen"}, {"blend", "pen", "street"})
    gain = sum(reached[domain] - before[domain] for domain in before) / 2
    told = (
        f"; those that were measured before too are {abs(gain):.1f} points {'above' if gain >= 0 else 'below'} the pre-"
    )
    assert told in sentence(run)

    alone = [*run.lines[:-1], {**run.lines[-1], "accuracy": {"street": run.lines[-1]["accuracy"]["street"]}}]
    only_the_new_one_is_left = sentence(replace(run, lines=alone))
    assert f"reached {reached['street']:.1f} % accuracy" in only_the_new_one_is_left
    assert "points" not in only_the_new_one_is_left


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--domain", "pen"), "this run has it already, beside pen, blend"),
        (("--domain", "nowhere"), "nowhere"),
        (("--domain", "fonts", "-c", "seed=3"), "seed: a run goes on with its own settings"),
    ],
)
def test_what_cannot_join_is_refused_and_nothing_is_written(words, said, adapted):
    before = sorted(adapted.parent.iterdir())
    result = CliRunner().invoke(cli, ["join", str(adapted), *words])
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.stderr.split())
    assert sorted(adapted.parent.iterdir()) == before


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_fmtda_join_goes_on_from_a_finished_run(tmp_path):
    simulate("--rounds", 1, "--targets", "blend,pen", "--output", tmp_path / "run")
    words = [sys.executable, "-m", "fmtda", "join", str(tmp_path / "run"), "--domain", "street", "--rounds", "2"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "joined late" in done.stdout
    new = tmp_path / "run-with-street"
    summary = json.loads((new / "summary.json").read_text())
    assert set(summary["newcomers"][NEW]["accuracy_after"]) == {"0", "1", "2"}
    assert [line["round"] for line in lines(new)] == [0, 1, 2, 3, 4]
    assert not (tmp_path / "run" / "clients" / "street").exists()


@needs_nginx
@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_supernode_that_connects_in_mid_run_joins(tmp_path):
    run, deployment = tmp_path / "run", Deployment(tmp_path / "federation", CLIENTS)
    try:
        deployment.start_superlink()
        deployment.register()
        for client in CLIENTS[:2]:
            deployment.start_supernode(client)
        deployment.wait_for_nodes(2)
        block = deployment.run_block(f'{overrides(small())} rounds=12 output="{run}"').replace("clients=3", "clients=2")
        block = block.replace("blend,pen,street", "blend,pen")
        deployment.start("run", block)
        deployment.wait_for(lambda: len(lines(run)) >= 2, "round 1")
        deployment.start_supernode("street")
        deployment.wait_for(lambda: deployment.ended("run"), "the end of the run")
    finally:
        deployment.close()
    assert (run / "summary.json").exists(), deployment.all_logs()
    newcomer = json.loads((run / "summary.json").read_text())["newcomers"][NEW]
    assert newcomer["joined"] >= 2
    assert set(newcomer["nearest"]) == {"blend/0000", "pen/0000"}
    assert {"0", "1"} <= set(newcomer["accuracy_after"])
    weights = [line["newcomers"][NEW]["weight"] for line in lines(run) if "newcomers" in line]
    assert weights == sorted(weights) and weights[0] == 0
