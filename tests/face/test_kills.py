"""``fmtda simulate`` against what a machine may do to it: SIGKILL twenty times in a row, and a disk that is full."""

import random
import re
import resource
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from real_runs import arrays, command, metrics, simulate

from fmtda.server import checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

KILLS, ROUNDS = 20, 60
OPTIONS = ("--targets", "blend,pen", "--clients", "2", "-c", "data.target-limit=100", "-c", "data.source-limit=200")


def started(run: Path) -> subprocess.Popen:
    """The run from its beginning, or from where it is."""
    options = ["--resume", str(run)] if (run / "config.toml").exists() else [*OPTIONS, "--rounds", ROUNDS]
    words = command("--output", run, *options) if "--resume" not in options else [*command()[:3], "simulate", *options]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill(process: subprocess.Popen) -> None:
    """SIGKILL; what Ray started is ended too, so that the next run has the machine for itself."""
    below = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    for child in below:
        if child.is_running():
            child.kill()


def reached(run: Path) -> int:
    """The last round with a checkpoint, -1 before the first. Every checkpoint under its name is whole."""
    folders = sorted((run / "checkpoints").glob("round-*"))
    newest = checkpoints.latest(run / "checkpoints")
    assert (newest.round if newest else None) == (int(folders[-1].name[6:]) if folders else None)
    return newest.round if newest else -1


def test_a_run_that_is_killed_twenty_times_ends_like_an_unbroken_one(tmp_path):
    run, moments = tmp_path / "killed", random.Random(0)
    last = -1
    for number in range(KILLS):
        process = started(run)
        if number % 4:  # in a round, else while it starts
            seen = last
            while reached(run) <= seen:
                assert process.poll() is None, "the run ended by itself"
                time.sleep(0.05)
        time.sleep(moments.uniform(0, 3 if number % 4 else 20))
        assert process.poll() is None, "give it more rounds"
        kill(process)
        assert reached(run) >= last
        last = reached(run)
    resumed = [*command()[:3], "simulate", "--resume", str(run)]
    done = subprocess.run(resumed, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"continuing after round {last}" in done.stdout
    simulate(*OPTIONS, "--rounds", ROUNDS, "--output", tmp_path / "unbroken")
    assert metrics(run) == metrics(tmp_path / "unbroken")
    assert arrays(run) == arrays(tmp_path / "unbroken")


def test_a_disk_that_takes_no_more_stops_the_run_with_a_reason_and_it_goes_on_later(tmp_path):
    run = tmp_path / "run"
    words = command("--output", run, *OPTIONS, "--rounds", ROUNDS)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while reached(run) < 1:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    # From here on no file of this process may grow, as on a full disk. Real limits, real failing writes.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    _, said = process.communicate(timeout=900)
    assert process.returncode == 1
    written_first = "(uploads|metrics of round [0-9]+|checkpoint of round [0-9]+)"  # as the moment has it
    assert re.search(rf"fmtda: stopped: can't write the {written_first} to {re.escape(str(run))}.*; make room", said)
    assert f"fmtda: continue with: fmtda simulate --resume {run}" in said
    assert "Traceback (most recent call last)" not in said.split("fmtda: stopped:")[1]
    last = reached(run)
    assert last >= 1
    process = started(run)
    while reached(run) < last + 1:
        assert process.poll() is None, "the resumed run ended early"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
