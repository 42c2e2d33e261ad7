"""What a client keeps to predict with: one copy, the newest, whole or told from what isn't; nothing in a simulation."""

import dataclasses
import json
import os
import resource
import signal

import pytest
import torch

from fmtda.domains.kept_model import ABOUT, MODEL, is_kept, keep_model, keeping_whole, read_kept
from fmtda.protocol.tables import SettingsError
from fmtda.strategies.composition import settings_in

ARRAYS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}


@pytest.fixture
def client(client_of):
    return client_of(server_round=4)


def test_what_is_kept_comes_back_with_its_client_round_and_settings_and_without_places(client_of, settings_of):
    settings = settings_of(
        {"output": "/secret/run", "data.dir": "/secret/data", "pretraining.base-dir": "/secret/base"}
    )
    client = client_of(settings, server_round=4)
    keep_model(client, ARRAYS)
    assert is_kept(client.folder)
    kept = read_kept(client.folder)
    assert (kept.client, kept.round) == ("pen/0000", 4)
    assert all(torch.equal(kept.arrays[name], value) for name, value in ARRAYS.items())
    assert settings_in(kept.settings) == settings.changed({"output": "", "data.dir": "", "pretraining.base-dir": ""})
    assert b"secret" not in (client.folder / ABOUT).read_bytes()


def test_a_simulated_client_keeps_none(client):
    keep_model(dataclasses.replace(client, simulated=True), ARRAYS)
    assert not client.folder.exists()


def test_an_equal_model_is_not_written_again_and_its_round_is_told_all_the_same(client):
    keep_model(client, ARRAYS)
    first = (client.folder / MODEL).stat()
    keep_model(dataclasses.replace(client, round=5), ARRAYS)
    assert (client.folder / MODEL).stat().st_ino == first.st_ino
    assert read_kept(client.folder).round == 5
    keep_model(dataclasses.replace(client, round=6), {**ARRAYS, "b": torch.tensor(4)})
    assert (client.folder / MODEL).stat().st_ino != first.st_ino
    assert sorted(file.name for file in client.folder.iterdir()) == [MODEL, ABOUT]  # one copy


def test_a_damaged_copy_is_written_again(client):
    keep_model(client, ARRAYS)
    (client.folder / MODEL).write_bytes(b"damaged")
    keep_model(client, ARRAYS)
    assert torch.equal(read_kept(client.folder).arrays["a"], ARRAYS["a"])


def test_what_training_changes_belongs_to_it_and_what_a_kill_left_half_done_does_not(client):
    client.keep("localised.safetensors", classifier={"weight": torch.zeros(2)})
    keep_model(client, ARRAYS)
    with keeping_whole(client):
        client.keep("uploaded.safetensors", classifier={"weight": torch.ones(2)})
    assert read_kept(client.folder).round == 4
    client.keep("localised.safetensors", classifier={"weight": torch.ones(2)})  # and killed before the model was kept
    with pytest.raises(SettingsError, match="what pen/0000 keeps here is not whole: .*--local") as caught:
        read_kept(client.folder)
    assert "\n" not in str(caught.value)
    with keeping_whole(client):  # training doesn't make it whole
        client.keep("uploaded.safetensors", classifier={"weight": torch.zeros(2)})
    with pytest.raises(SettingsError, match="not whole"):
        read_kept(client.folder)
    keep_model(client, ARRAYS)
    assert read_kept(client.folder).round == 4


def test_training_that_fails_half_way_is_not_called_whole(client):
    keep_model(client, ARRAYS)
    with pytest.raises(ZeroDivisionError), keeping_whole(client):
        client.keep("uploaded.safetensors", classifier={"weight": torch.ones(2)})
        raise ZeroDivisionError
    with pytest.raises(SettingsError, match="not whole"):
        read_kept(client.folder)


def test_another_runs_model_or_description_is_told_from_its_own(client, client_of, settings_of):
    keep_model(client, ARRAYS)
    other = client_of(settings_of({"seed": 3}), folder="others")
    keep_model(other, {**ARRAYS, "a": torch.zeros(2, 3)})
    for file in (MODEL, ABOUT):
        own = (client.folder / file).read_bytes()
        (client.folder / file).write_bytes((other.folder / file).read_bytes())
        with pytest.raises(SettingsError, match="not whole"):
            read_kept(client.folder)
        (client.folder / file).write_bytes(own)
    (client.folder / MODEL).unlink()
    with pytest.raises(SettingsError, match="not whole"):
        read_kept(client.folder)


def changed(**values):
    return lambda about: {**about, **values}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            changed(format=2, fmtda="9.1\x1b[31m"),
            r"written by fmtda 9.1\\x1b\[31m in format 2, and this is .* format 1",
        ),
        (changed(format=float("inf")), "not what a client of fmtda writes"),
        (changed(format=None), "not what a client of fmtda writes"),
        (changed(client="pen\x1b[31m/0000"), "not what a client of fmtda writes"),
        (changed(client=["pen"]), "not what a client of fmtda writes"),
        (changed(round="1"), "not what a client of fmtda writes"),
        (changed(settings="{}"), "not what a client of fmtda writes"),
        (changed(files=[]), "not what a client of fmtda writes"),
        (changed(files={}), "not what a client of fmtda writes"),
        (changed(files={MODEL: "0"}), "not whole"),
        (lambda about: [], "not what a client of fmtda writes"),
        (lambda about: {key: value for key, value in about.items() if key != "client"}, "not what a client of fmtda"),
    ],
)
def test_a_description_that_is_none_is_one_line(change, said, client):
    keep_model(client, ARRAYS)
    file = client.folder / ABOUT
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(SettingsError, match=said) as caught:
        read_kept(client.folder)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value) and str(client.folder) in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 100_000, "{" + " " * 2**20 + "}", "\xff", "", '{"format": ' + "9" * 5000 + "}"])
def test_a_text_that_is_no_description_is_one_line(text, client):
    keep_model(client, ARRAYS)
    (client.folder / ABOUT).write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError, match="not what a client of fmtda writes"):
        read_kept(client.folder)
    keep_model(client, ARRAYS)
    assert read_kept(client.folder).round == 4


def test_a_full_disk_is_a_warning_and_leaves_no_litter(client):
    """A limit on the size of files stands for the disk: what is beyond it, the system refuses."""
    keep_model(client, ARRAYS)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.warns(UserWarning, match="pen/0000 keeps no model in .*File too large"):
            keep_model(client, {"a": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert sorted(os.listdir(client.folder)) == [MODEL, ABOUT]
    assert torch.equal(read_kept(client.folder).arrays["a"], ARRAYS["a"])
