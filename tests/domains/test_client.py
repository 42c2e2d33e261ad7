"""What stays with a client: whole or not there."""

import pytest
import torch

from fmtda.clients import local_part


def tensors(value):
    return {"weight": torch.full((100, 10), float(value)), "bias": torch.full((3,), float(value))}


def test_what_is_written_is_read(tmp_path):
    local_part.write(tmp_path / "pen" / "0000", local_part.UPLOADED, tensors(1))
    read = local_part.read(tmp_path / "pen" / "0000", local_part.UPLOADED)
    assert read.keys() == tensors(1).keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors(1).items())


@pytest.mark.parametrize("written", [0.0, 0.5, 1.0])
def test_a_kill_while_writing_leaves_the_old_file(tmp_path, monkeypatch, written):
    local_part.write(tmp_path, local_part.UPLOADED, tensors(1))
    whole = local_part.save_file

    def killed(content, path):
        whole(content, path)
        data = path.read_bytes()
        path.write_bytes(data[: int(written * len(data))])
        raise KeyboardInterrupt

    monkeypatch.setattr(local_part, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        local_part.write(tmp_path, local_part.UPLOADED, tensors(2))
    assert torch.equal(local_part.read(tmp_path, local_part.UPLOADED)["bias"], tensors(1)["bias"])


def test_nothing_but_the_file_stays_after_writing(tmp_path):
    for value in (1, 2):
        local_part.write(tmp_path, local_part.UPLOADED, tensors(value))
    assert [path.name for path in tmp_path.iterdir()] == [local_part.UPLOADED]
    assert torch.equal(local_part.read(tmp_path, local_part.UPLOADED)["bias"], tensors(2)["bias"])


def test_a_missing_folder_reads_as_none(tmp_path):
    assert local_part.read(tmp_path / "lost", local_part.UPLOADED) is None


@pytest.mark.parametrize("content", [b"", b"junk", b"\xff" * 100])
def test_a_damaged_file_reads_as_none(tmp_path, content):
    (tmp_path / local_part.UPLOADED).write_bytes(content)
    assert local_part.read(tmp_path, local_part.UPLOADED) is None


def test_groups_come_apart_as_they_were_put_together():
    together = local_part.prefixed("classifier", tensors(1)) | local_part.prefixed("mixture", tensors(2))
    assert local_part.group("classifier", together)["bias"][0] == 1
    assert local_part.group("mixture", together)["bias"][0] == 2
    assert local_part.group("batch-norm", together) == {}
