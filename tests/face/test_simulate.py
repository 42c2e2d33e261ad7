"""``fmtda simulate`` end to end: real Flower, real Ray, embedded digits."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from real_runs import arrays, command, metrics, simulate

from fmtda.domains.street_shapes import CLASSES
from fmtda.simulation import flower_engine

TARGETS = ["blend", "fonts", "pen", "street"]


@pytest.mark.parametrize(
    ("clients", "client_cpus", "cores"), [(4, 1, 4), (400, 1, 16), (3, 0.5, 2), (1, 0.25, 1), (2, 8, 16)]
)
def test_ray_gets_no_more_cores_than_the_clients_want(clients, client_cpus, cores, monkeypatch):
    monkeypatch.setattr(flower_engine.os, "cpu_count", lambda: 16)
    assert flower_engine.cores_for(clients, client_cpus) == cores


def test_ends_with_a_table_a_summary_and_the_path(finished):
    run, printed = finished
    summary = json.loads((run / "summary.json").read_text())
    assert sorted(summary["accuracy"]) == TARGETS
    assert all(0 <= value <= 100 for value in summary["accuracy"].values())
    assert summary["average_accuracy"] == pytest.approx(sum(summary["accuracy"].values()) / 4)
    assert sorted(summary["source_only"]) == sorted(summary["plain_source_only"]) == TARGETS
    assert summary["failures"] == 0
    assert summary["uplink_bytes_per_client_round"] < summary["downlink_bytes_per_client_round"] / 20
    for text in ("plain source-only", "F_g", "F_l", "mean", "personalised", *TARGETS):
        assert text in printed
    assert "round 2/2" in printed
    assert str(run) in printed.replace("\n", "")


def test_run_directory_holds_what_the_docs_list(finished):
    run, _ = finished
    names = {entry.name for entry in run.iterdir()}
    assert {"config.toml", "metrics.jsonl", "summary.json", "checkpoints", "tensorboard", "clients"} <= names
    assert [line["round"] for line in metrics(run)] == [0, 1, 2, 2]
    assert {path.parent.relative_to(run / "clients").as_posix() for path in run.glob("clients/*/*/localised.*")} == {
        f"{domain}/0000" for domain in TARGETS
    }
    assert any((run / "tensorboard").iterdir())


def test_equal_seeds_give_equal_metrics_and_arrays_also_where_one_run_was_killed_and_resumed(finished, tmp_path):
    run, _ = finished
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        command("--rounds", 2, "--output", killed, "-c", "dualadapt.personalise.on=true"), stdout=subprocess.DEVNULL
    )
    _wait_for(lambda: (killed / "checkpoints" / "round-000001").exists(), process)
    family = [process, *psutil.Process(process.pid).children(recursive=True)]
    process.kill()
    process.wait()
    psutil.wait_procs(family[1:], timeout=20)
    assert not (killed / "summary.json").exists()
    simulate_again = subprocess.run(
        [*command()[:3], "simulate", "--resume", str(killed)], capture_output=True, text=True, timeout=300
    )
    assert simulate_again.returncode == 0, simulate_again.stdout + simulate_again.stderr
    assert "continuing after round 1" in simulate_again.stdout
    assert metrics(killed) == metrics(run)
    assert arrays(killed) == arrays(run)


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_within_seconds_and_says_how_to_resume(number, tmp_path):
    run = tmp_path / "interrupted"
    process = subprocess.Popen(
        command("--rounds", 50, "--output", run, "--client-cpus", 0.5),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    _wait_for(lambda: (run / "checkpoints" / "round-000001").exists(), process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"fmtda simulate --resume {run} --client-cpus 0.5" in printed
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive


@pytest.mark.skipif(os.name != "posix", reason="sockets as POSIX has them")
def test_where_ray_cant_start_the_run_ends_with_the_reason(tmp_path):
    too_long_for_a_socket = tmp_path / ("x" * 110)
    too_long_for_a_socket.mkdir()
    done = subprocess.run(
        command("--output", tmp_path / "run"),
        env={**os.environ, "RAY_TMPDIR": str(too_long_for_a_socket)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "Ray failed" in done.stdout and "AF_UNIX path length" in done.stdout
    assert "nothing was trained yet" in done.stdout
    assert "Traceback" in (tmp_path / "run" / "flower.log").read_text() and "Traceback" not in done.stderr


def test_an_error_of_the_server_is_not_called_one_of_ray(tmp_path):
    program = f"""
from fmtda.simulation.flower_engine import simulate
from fmtda.server.progress import Lines
from fmtda.server.startup import effective_settings

class Failing(Lines):
    def stage(self, name, total):
        raise RuntimeError("the watcher failed") from ValueError("its cause")

settings = effective_settings({{"output": {str(tmp_path / "run")!r}}})
simulate(settings, Failing(), client_cpus=1, client_gpus=0, resume="")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stderr.endswith("RuntimeError: the watcher failed\n")
    assert "Ray failed" not in done.stdout


@pytest.mark.parametrize("strategy", ["fedavg-self-training", "fed-mcd", "fed-dann"])
def test_strategies_that_upload_the_whole_network_run(strategy, finished, tmp_path):
    simulate("--strategy", strategy, "--rounds", 1, "--output", tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    # One pre-training for all: strategies start from the same network.
    assert summary["source_only"] == json.loads((finished[0] / "summary.json").read_text())["source_only"]
    ours = json.loads((finished[0] / "summary.json").read_text())["uplink_bytes_per_client_round"]
    assert ours <= summary["uplink_bytes_per_client_round"] / 20


def test_street_scenes_end_with_the_mean_iou_and_that_of_each_class(tmp_path):
    few = ("-c", "pretraining.steps=3", "-c", "pretraining.plain-steps=1", "-c", "dualadapt.server-steps=1")
    few += ("-c", "dualadapt.client-steps=2", "-c", "dualadapt.self-training.steps=1")
    few += ("-c", "data.source-limit=24", "-c", "data.target-limit=12")
    data = ("--data", "streets", "--targets", "dusk", "--clients", 2)
    printed = simulate(*data, "--rounds", 1, "--output", tmp_path / "run", *few)
    assert "mIoU in percent per target domain" in printed.stdout
    assert "round 1/1: mIoU dusk " in printed.stdout
    assert "accuracy" not in printed.stdout
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["metric"] == "mean-iou"
    assert summary["failures"] == 0
    assert tuple(summary["class_iou"]["dusk"]) == CLASSES
    assert summary["accuracy"]["dusk"] == pytest.approx(sum(summary["class_iou"]["dusk"].values()) / len(CLASSES))


def test_many_clients_on_dirichlet_shares_and_a_part_of_them_in_a_round(tmp_path):
    options = ("-c", "data.partition=dirichlet", "-c", "fraction=0.5", "--preset", "paper")
    simulate("--clients", 12, "--rounds", 2, "--output", tmp_path / "run", *options)
    lines = metrics(tmp_path / "run")
    trained = [{name: c for name, c in line["clients"].items() if c["up_training"]} for line in lines[1:]]
    cohorts = [sorted(clients) for clients in trained]
    assert [len(cohort) for cohort in cohorts] == [6, 6]
    assert cohorts[0] != cohorts[1]
    examples = [c["train"]["num-examples"] for c in trained[0].values()]
    assert len(set(examples)) > 1
    assert sorted(json.loads((tmp_path / "run" / "summary.json").read_text())["accuracy"]) == TARGETS


def _wait_for(condition, process: subprocess.Popen, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended early"
        assert time.monotonic() < deadline, "the run did not get there"
        time.sleep(0.02)
