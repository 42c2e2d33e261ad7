"""The run directory: refusals before anything is written, and what resuming cuts back to."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fmtda.protocol.tables import SettingsError
from fmtda.server import app
from fmtda.server.run_directory import (
    FLOWER_LOG,
    RunDirectory,
    WriteError,
    read_metrics,
    refuse_other_settings,
    refuse_unusable_output,
    stored_run_config,
)
from tests.server.compared import without_times


@pytest.fixture
def settings_with(settings_of, tmp_path):
    """Settings of a run of three rounds; a dictionary changes some."""

    def make(changes):
        return settings_of({"output": str(tmp_path / "run"), "rounds": 3, **changes})

    return make


@pytest.fixture
def settings(settings_with):
    return settings_with({})


def line(server_round, phase="round"):
    return {"round": server_round, "phase": phase, "accuracy": {"pen": {"global": 50.0}}}


def test_a_new_run_holds_its_effective_settings_and_versions(settings):
    run = RunDirectory.create(settings)
    written = tomllib.loads((run.path / "config.toml").read_text())
    assert written["settings"] == settings.nested()
    assert stored_run_config(run.path) == settings.flat()
    assert written["versions"]["torch"].startswith("2.13")
    assert [path.name for path in run.path.iterdir()] == ["config.toml"]


def test_folders_above_are_made(settings, tmp_path):
    run = RunDirectory.create(settings.changed({"output": str(tmp_path / "a" / "b" / "c")}))
    assert (run.path / "config.toml").is_file()


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path, settings):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(SettingsError, match="not empty; name a new folder") as caught:
        RunDirectory.create(settings)
    assert str(caught.value).startswith(f"output={tmp_path / 'run'}: ")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_a_folder_with_a_run_is_refused_with_the_line_that_continues_it(settings):
    run = RunDirectory.create(settings)
    with pytest.raises(SettingsError, match=f"--resume {run.path}"):
        refuse_unusable_output(run.path)


def test_flowers_own_log_may_be_there_first(tmp_path, settings):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / FLOWER_LOG).write_text("it began")
    RunDirectory.create(settings)
    assert (tmp_path / "run" / FLOWER_LOG).read_text() == "it began"


def test_a_file_in_place_of_the_folder_is_refused(tmp_path, settings):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(SettingsError, match="this is a file; name a folder"):
        RunDirectory.create(settings)


def test_a_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SettingsError, match="can't be written to; name a folder that can"):
        refuse_unusable_output(tmp_path / "file" / "run" / "deep")


def test_a_folder_without_write_permission_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(SettingsError, match=f"{tmp_path} can't be written to"):
        refuse_unusable_output(tmp_path / "run")


def test_refusing_creates_nothing(tmp_path):
    refuse_unusable_output(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1),
        ("strategy", "source-only"),
        ("clients", 5),
        ("dualadapt.guard", False),
        ("dualadapt.self-training.on", False),
        ("data.alpha", 0.25),
        ("pretraining.steps", 9),
    ],
)
def test_a_run_with_other_settings_is_refused_by_the_key(settings, settings_with, key, value):
    RunDirectory.create(settings)
    with pytest.raises(SettingsError) as caught:
        RunDirectory.open(settings_with({key: value}))
    assert str(caught.value).startswith(f"{key}={value}: the run in {settings.output} has {key}=")
    assert "\n" not in str(caught.value)
    assert stored_run_config(Path(settings.output)) == settings.flat()


def test_more_rounds_may_follow_and_fewer_may_not(settings):
    RunDirectory.create(settings)
    RunDirectory.open(settings.changed({"rounds": 5}))
    assert stored_run_config(Path(settings.output))["rounds"] == 5
    with pytest.raises(SettingsError, match="rounds=4: .* has 5; only more can follow"):
        RunDirectory.open(settings.changed({"rounds": 4}))


def test_waiting_longer_is_no_other_run(settings):
    RunDirectory.create(settings)
    refuse_other_settings(settings.changed({"timeout": 1.0, "join-timeout": 1.0, "data.dir": "/moved", "resume": True}))
    with pytest.raises(SettingsError, match="seed=9"):
        refuse_other_settings(settings.changed({"timeout": 1.0, "seed": 9}))


def test_a_setting_that_has_no_say_is_no_other_run_until_it_has(settings_with):
    RunDirectory.create(settings_with({}))
    refuse_other_settings(settings_with({"dualadapt.personalise.steps": 9}))
    with pytest.raises(SettingsError, match=r"dualadapt\.personalise\.on=True: the run in .* has .*on=False"):
        refuse_other_settings(settings_with({"dualadapt.personalise.steps": 9, "dualadapt.personalise.on": True}))


@pytest.mark.parametrize(("key", "value"), [("dualadapt.joining.rounds", 9), ("dualadapt.joining.start", "global")])
def test_how_newcomers_begin_is_part_of_the_run(settings_with, key, value):
    """Their weight counts in Eq. 6, so G of everybody differs by it."""
    RunDirectory.create(settings_with({}))
    with pytest.raises(SettingsError, match=f"{key}={value}: the run in "):
        refuse_other_settings(settings_with({key: value}))


def test_a_run_of_a_version_whose_settings_were_no_tables_is_refused_by_its_version(settings):
    path = Path(settings.output)
    path.mkdir()
    (path / "config.toml").write_text('[settings]\ndata = "digits"\n[versions]\nfmtda = "0.3.0"\n')
    with pytest.raises(SettingsError, match=f"{path}: this run was made by fmtda 0.3.0 and wants that version"):
        RunDirectory.open(settings)


@pytest.mark.parametrize("content", [None, "", "settings = [", "settings = 3", "[versions]\ntorch = '2'"])
def test_a_folder_without_a_run_cannot_be_continued(settings, content):
    path = Path(settings.output)
    if content is not None:
        path.mkdir()
        (path / "config.toml").write_text(content)
    with pytest.raises(SettingsError, match="no run here"):
        RunDirectory.open(settings)


def untimed(run):
    return [without_times(each) for each in run.metrics()]


def test_metrics_are_read_as_they_were_written(settings):
    run = RunDirectory.create(settings)
    for server_round in range(3):
        run.append_metrics(line(server_round))
    assert untimed(run) == [line(0), line(1), line(2)]
    assert all(each["wall_seconds"] >= 0 for each in run.metrics())


def test_a_run_without_metrics_has_none(settings):
    assert RunDirectory.create(settings).metrics() == []


@pytest.mark.parametrize("kept", range(len(json.dumps(line(2)))))
def test_a_last_line_that_a_kill_left_unfinished_is_ignored(tmp_path, kept):
    text = "".join(json.dumps(line(number)) + "\n" for number in range(2)) + json.dumps(line(2))[:kept]
    (tmp_path / "metrics.jsonl").write_text(text)
    assert read_metrics(tmp_path) == [line(0), line(1)]


def test_cutting_back_keeps_whole_rounds_up_to_the_checkpoint(settings):
    run = RunDirectory.create(settings)
    for each in (line(0), line(1), line(2), line(2, "personalise"), line(3)):
        run.append_metrics(each)
    run.cut_back(2)
    assert untimed(run) == [line(0), line(1), line(2)]
    run.cut_back(-1)
    assert run.metrics() == []


def test_a_line_added_after_a_torn_one_is_not_lost(settings):
    run = RunDirectory.create(settings)
    run.append_metrics(line(0))
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 1, "pha')
    run.cut_back(0)
    run.append_metrics(line(1))
    assert untimed(run) == [line(0), line(1)]


def test_a_kill_while_the_summary_is_written_leaves_the_old_one(settings, monkeypatch):
    run = RunDirectory.create(settings)
    run.write_summary({"accuracy": 1})
    monkeypatch.setattr("pathlib.Path.rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run.write_summary({"accuracy": 2})
    assert json.loads((run.path / "summary.json").read_text()) == {"accuracy": 1}


def test_the_last_uploads_and_the_next_rounds_source_mixture_are_kept(grid_of, silence, small_run, tmp_path):
    settings = small_run({"clients": 2})
    directory = app.run(grid_of.simulated(2), settings, silence)
    assert directory.senders() == ["blend/0000", "pen/0000"]
    for name in directory.senders():
        own = load_file(tmp_path / "run" / "clients" / name / "uploaded.safetensors")
        sent = load_file(directory.uploads / name / "uploaded.safetensors")
        assert sent.keys() == own.keys()
        assert all(torch.equal(sent[array], own[array]) for array in own)
    (mixture,) = directory.closing().values()
    grid = grid_of.simulated(2)
    app.run(grid, settings.changed({"rounds": 2, "resume": True}), silence)
    broadcast = next(m.content["source_mixture"] for m in grid.sent if "source_mixture" in m.content)
    assert mixture.keys() == broadcast.keys()
    assert all(np.array_equal(mixture[name].numpy(), array.numpy()) for name, array in broadcast.items())


def test_a_run_whose_clients_upload_whole_models_keeps_none_of_them(grid_of, silence, small_run):
    settings = small_run({"strategy": "fedavg-self-training"})
    directory = app.run(grid_of.simulated(3), settings, silence)
    assert (directory.senders(), directory.closing()) == ([], {})
    assert not directory.uploads.exists()


def test_what_is_kept_at_the_end_comes_back_and_a_damaged_file_is_as_good_as_none(settings):
    run = RunDirectory.create(settings)
    assert run.closing() == {}
    run.keep_closing({"one": {"weight": torch.arange(4.0)}, "other": {"bias": torch.ones(2, 3).T}})
    assert torch.equal(run.closing()["one"]["weight"], torch.arange(4.0))
    assert torch.equal(run.closing()["other"]["bias"], torch.ones(3, 2))
    (run.uploads / "one.safetensors").write_bytes(b"half")
    assert list(run.closing()) == ["other"]


def test_a_folder_for_uploads_that_cant_be_written_to_is_named(settings, message_to, client_of):
    run = RunDirectory.create(settings)
    run.uploads.write_text("a file")
    with pytest.raises(WriteError, match="can't write the uploads to .*uploads"):
        run.keep_uploads({"pen/0000": message_to(client_of())})


@pytest.mark.parametrize("name", ["../outside/0000", "pen/../../0000", "/tmp/0000", "pen", "a\x00/0000"])
def test_uploads_under_a_name_that_is_none_are_written_nowhere(name, settings, client_of, message_to):
    run = RunDirectory.create(settings)
    before = sorted(run.path.parent.rglob("*"))
    with pytest.raises(ValueError, match="is no client's name"):
        run.keep_uploads({name: message_to(client_of())})
    assert sorted(run.path.parent.rglob("*")) == before
