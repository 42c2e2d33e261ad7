"""A run directory has one owner at a time: others are told who, and a killed owner bars nobody."""

import json
import signal
import subprocess
import sys

import pytest

from fmtda.protocol.tables import SettingsError
from fmtda.server.app import run
from fmtda.server.run_directory import RunDirectory
from fmtda.server.run_lock import OWNER, owned, refuse_owned

HOLD = """
import sys, time
from pathlib import Path
from fmtda.server.run_lock import owned
with owned(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that owns the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "mine\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_and_told_who_is_first(tmp_path, other):
    with pytest.raises(
        SettingsError, match=f"output={tmp_path}: process {other.pid} on .*, works in this run"
    ) as caught:
        with owned(tmp_path):
            raise AssertionError("owned by two")
    assert "\n" not in str(caught.value)
    with pytest.raises(SettingsError, match=f"process {other.pid}"):
        refuse_owned(tmp_path)
    assert json.loads((tmp_path / OWNER).read_text())["process"] == other.pid


def test_a_killed_owner_bars_nobody_and_is_told(tmp_path, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    refuse_owned(tmp_path)
    with owned(tmp_path) as before:
        assert before.startswith(f"process {other.pid} on ")
    with owned(tmp_path) as before:
        assert before == ""


def test_an_owner_that_fails_leaves_no_trace_of_being_killed(tmp_path):
    with pytest.raises(ValueError, match="broken"), owned(tmp_path):
        raise ValueError("broken")
    with owned(tmp_path) as before:
        assert before == ""


@pytest.mark.parametrize(
    "text", ["", "[]", '{"process": 1}', "[" * 100_000, "\0", '{"process": "\\u001b[2J", "host": 1, "since": 2}']
)
def test_a_spoiled_owners_file_is_no_trouble(tmp_path, text):
    (tmp_path / OWNER).write_text(text)
    with owned(tmp_path) as before:
        assert "\x1b" not in before
    refuse_owned(tmp_path)


def test_a_folder_that_is_no_run_of_ours_stays_as_it_was(tmp_path, small_run):
    (tmp_path / "theirs.txt").write_text("theirs")
    for resume in (False, True):
        with pytest.raises(SettingsError):
            with RunDirectory.at_work(small_run({"output": str(tmp_path), "resume": resume})):
                raise AssertionError("began in a folder of somebody else's")
    assert [file.name for file in tmp_path.iterdir()] == ["theirs.txt"]


def test_a_run_and_its_resumption_own_the_directory_meanwhile(tmp_path, small_run, grid_of, silence):
    settings = small_run({"strategy": "source-only", "rounds": 1, "output": str(tmp_path / "run")})

    def refused_meanwhile(sent, honest):
        with pytest.raises(SettingsError, match="works in this run directory"):
            with RunDirectory.at_work(settings.changed({"resume": True})):
                raise AssertionError("owned by two")
        meanwhile.append(sent.metadata.message_type)
        return honest

    meanwhile: list[str] = []
    run(grid_of.simulated(3, tamper=refused_meanwhile), settings, silence)
    assert {"query", "evaluate"} <= set(meanwhile)
    run(grid_of.simulated(3), settings.changed({"resume": True, "rounds": 2}), silence)
    assert len(RunDirectory(tmp_path / "run").metrics()) == 3
