"""Checkpoints: whole or not there, whatever happens while they are written."""

import errno
import json
import os
import shutil

import pytest
import torch

from fmtda.server import checkpoints
from fmtda.server.checkpoints import latest, write
from fmtda.server.run_directory import WriteError


def model(value):
    return {"weight": torch.full((20, 30), float(value)).T, "bias": torch.tensor([value, -0.0, float(value) / 3])}


def value_of(checkpoint):
    return checkpoint.model["bias"][0].item()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run" / "checkpoints"


def test_what_is_written_comes_back_bit_by_bit(folder):
    write(folder, 3, model(1))
    checkpoint = latest(folder)
    assert checkpoint.round == 3
    assert checkpoint.model.keys() == model(1).keys()
    for name, tensor in model(1).items():
        assert checkpoint.model[name].shape == tensor.shape
        assert checkpoint.model[name].numpy().tobytes() == tensor.contiguous().numpy().tobytes()


def test_without_a_checkpoint_there_is_none(folder):
    assert latest(folder) is None
    folder.mkdir(parents=True)
    assert latest(folder) is None


def test_the_newest_counts_and_two_are_kept(folder):
    for server_round in (0, 1, 2, 9, 10, 11):
        write(folder, server_round, model(server_round))
        assert latest(folder).round == server_round
    assert sorted(path.name for path in folder.iterdir()) == ["round-000010", "round-000011"]


def test_a_round_written_again_replaces_itself(folder):
    write(folder, 1, model(1))
    write(folder, 1, model(2))
    assert value_of(latest(folder)) == 2


@pytest.mark.parametrize("file", ["model.safetensors", "manifest.json"])
def test_a_kill_at_any_file_leaves_the_old_checkpoint(folder, monkeypatch, file):
    write(folder, 1, model(1))
    whole = checkpoints._write_through

    def killed(path, data):
        if path.name == file:
            path.write_bytes(data[: len(data) // 2])
            raise KeyboardInterrupt
        whole(path, data)

    monkeypatch.setattr(checkpoints, "_write_through", killed)
    with pytest.raises(KeyboardInterrupt):
        write(folder, 2, model(2))
    assert (latest(folder).round, value_of(latest(folder))) == (1, 1)
    monkeypatch.undo()
    write(folder, 3, model(3))
    assert latest(folder).round == 3
    assert sorted(path.name for path in folder.iterdir()) == ["round-000001", "round-000003"]


def test_a_kill_while_an_old_one_is_removed_hinders_nobody(folder, monkeypatch):
    for server_round in (1, 2):
        write(folder, server_round, model(server_round))

    def killed(path, ignore_errors=False):
        if path.name.startswith(".removing"):
            raise KeyboardInterrupt
        shutil.rmtree(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(checkpoints, "shutil", type("Shutil", (), {"rmtree": staticmethod(killed)}))
    with pytest.raises(KeyboardInterrupt):
        write(folder, 3, model(3))
    monkeypatch.undo()
    assert latest(folder).round == 3
    for server_round in (1, 4, 5):
        write(folder, server_round, model(server_round))
    assert sorted(path.name for path in folder.iterdir()) == ["round-000004", "round-000005"]


def damage_bit(path):
    data = bytearray((path / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "model.safetensors").write_bytes(data)


DAMAGES = {
    "one bit": damage_bit,
    "cut off": lambda path: os.truncate(path / "model.safetensors", 40),
    "no model": lambda path: (path / "model.safetensors").unlink(),
    "no manifest": lambda path: (path / "manifest.json").unlink(),
    "half a manifest": lambda path: (path / "manifest.json").write_text('{"round": 2, "sha'),
    "empty manifest": lambda path: (path / "manifest.json").write_text("{}"),
    "another's manifest": lambda path: (path / "manifest.json").write_text("[]"),
    "nothing": lambda path: [file.unlink() for file in path.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_is_skipped_for_the_older(folder, damage):
    for server_round in (1, 2):
        write(folder, server_round, model(server_round))
    DAMAGES[damage](folder / "round-000002")
    assert (latest(folder).round, value_of(latest(folder))) == (1, 1)
    write(folder, 2, model(7))
    assert (latest(folder).round, value_of(latest(folder))) == (2, 7)


def test_the_manifest_says_round_and_checksum(folder):
    write(folder, 4, model(1))
    manifest = json.loads((folder / "round-000004" / "manifest.json").read_text())
    assert manifest["round"] == 4
    assert len(manifest["sha256"]) == 64


def test_a_full_disk_is_reported_and_leaves_the_old_checkpoint(folder, monkeypatch):
    write(folder, 1, model(1))

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="round 2 .*No space left on device") as caught:
        write(folder, 2, model(2))
    assert str(folder) in str(caught.value)
    assert (latest(folder).round, value_of(latest(folder))) == (1, 1)


def test_a_file_in_place_of_the_folder_is_reported(folder):
    folder.parent.mkdir()
    folder.write_text("in the way")
    with pytest.raises(WriteError, match="can't write the checkpoint of round 1"):
        write(folder, 1, model(1))
    assert folder.read_text() == "in the way"
