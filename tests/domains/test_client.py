"""What stays with a client: whole or not there."""

import dataclasses

import pytest
import torch

from fmtda.domains import client as clients

FILE = "part.safetensors"


def tensors(value):
    return {"weight": torch.full((100, 10), float(value)), "bias": torch.full((3,), float(value))}


def test_what_is_kept_is_read_by_group(client_of):
    client = client_of()
    client.keep(FILE, classifier=tensors(1), **{"batch-norm": {"2.running.mean": torch.ones(2)}})
    kept = client.kept(FILE)
    assert kept.keys() == {"classifier", "batch-norm"}
    assert kept["batch-norm"].keys() == {"2.running.mean"}
    assert kept["classifier"].keys() == tensors(1).keys()
    assert all(torch.equal(kept["classifier"][name], tensor) for name, tensor in tensors(1).items())


@pytest.mark.parametrize("written", [0.0, 0.5, 1.0])
def test_a_kill_while_writing_leaves_the_old_file(client_of, monkeypatch, written):
    client = client_of()
    client.keep(FILE, classifier=tensors(1))
    whole = clients.save_file

    def killed(content, path):
        whole(content, path)
        data = path.read_bytes()
        path.write_bytes(data[: int(written * len(data))])
        raise KeyboardInterrupt

    monkeypatch.setattr(clients, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        client.keep(FILE, classifier=tensors(2))
    assert torch.equal(client.kept(FILE)["classifier"]["bias"], tensors(1)["bias"])


def test_nothing_but_the_file_stays_after_writing(client_of):
    client = client_of()
    for value in (1, 2):
        client.keep(FILE, classifier=tensors(value))
    assert [path.name for path in client.folder.iterdir()] == [FILE]
    assert torch.equal(client.kept(FILE)["classifier"]["bias"], tensors(2)["bias"])


def test_what_is_forgotten_is_gone_and_may_be_forgotten_again(client_of):
    client = client_of()
    client.keep(FILE, classifier=tensors(1))
    for _ in range(2):
        client.forget(FILE)
        assert client.kept(FILE) is None


def test_a_missing_folder_reads_as_none(client_of):
    client = client_of(folder="lost")
    assert client.kept(FILE) is None
    assert not client.folder.exists()


@pytest.mark.parametrize("content", [b"", b"junk", b"\xff" * 100])
def test_a_damaged_file_reads_as_none(client_of, content):
    client = client_of()
    client.folder.mkdir(parents=True)
    (client.folder / FILE).write_bytes(content)
    assert client.kept(FILE) is None


def test_what_the_folder_lacks_is_looked_for_elsewhere(client_of, tmp_path):
    uploads = client_of(folder="uploads")
    uploads.keep(FILE, classifier=tensors(1))
    client = dataclasses.replace(client_of(), elsewhere=uploads.folder)
    assert torch.equal(client.kept(FILE)["classifier"]["bias"], tensors(1)["bias"])
    client.keep(FILE, classifier=tensors(2))
    assert torch.equal(client.kept(FILE)["classifier"]["bias"], tensors(2)["bias"])
    assert torch.equal(uploads.kept(FILE)["classifier"]["bias"], tensors(1)["bias"])
