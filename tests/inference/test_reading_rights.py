"""An account that may not read all of a run is told so, and gets no weaker model in silence."""

import dataclasses
import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

import fmtda
from fmtda.adaptation.mixture import fit
from fmtda.adaptation.registry import build
from fmtda.domains.kept_model import keep_model
from fmtda.domains.reading_rights import Unreadable, matching
from fmtda.face.command_line import cli
from fmtda.face.report.runs import Run
from fmtda.server import checkpoints
from fmtda.server.run_directory import RunDirectory

NOBODY = 65534


@contextmanager
def without_rights():
    """Be an account in here that may read nothing it has no right to: root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder():
    """A folder that every account may enter; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for each in (folder, *folder.rglob("*")):
        if each.is_dir():
            each.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def run(open_folder, settings_of):
    """A deployment's run directory: pen and blend have uploaded."""
    settings = settings_of({"output": str(open_folder / "run"), "data.targets": "pen,blend"})
    path = RunDirectory.create(settings).path
    network = build("small-cnn", 10, (3, 32, 32), 0)
    checkpoints.write(path / "checkpoints", 1, network.state_dict())
    checkpoints.write(path / "checkpoints", 2, network.state_dict())
    mixture = fit(torch.rand(80, 128, generator=torch.Generator().manual_seed(0)), 2, 0)
    groups = {"classifier": network.classifier.state_dict(), "mixture": mixture.tensors()}
    tensors = {f"{group}.{name}": tensor for group, named in groups.items() for name, tensor in named.items()}
    for name in ("pen/0000", "blend/0000"):
        (path / "uploads" / name).mkdir(parents=True)
        save_file({key: t.clone() for key, t in tensors.items()}, path / "uploads" / name / "uploaded.safetensors")
    save_file({"weights": torch.ones(1)}, path / "uploads" / "source_mixture.safetensors")
    (path / "summary.json").write_text(json.dumps({"accuracy_by_head": {}}))
    own = path / "clients" / "pen" / "0000"
    own.mkdir(parents=True)
    save_file({"classifier.weight": torch.ones(1)}, own / "other.safetensors")
    for each in path.rglob("*"):  # safetensors writes for its own account alone
        each.chmod(0o755 if each.is_dir() else 0o644)
    assert "last uploaded it" in fmtda.load(path, "pen").parts
    return path


CLOSED = [
    "config.toml",
    "checkpoints",
    "checkpoints/round-000002",
    "checkpoints/round-000002/manifest.json",
    "checkpoints/round-000002/model.safetensors",
    "uploads",
    "uploads/pen",
    "uploads/pen/0000",
    "uploads/pen/0000/uploaded.safetensors",
    "clients",
    "clients/pen",
    "clients/pen/0000",
    "clients/pen/0000/other.safetensors",
]


@pytest.mark.parametrize(
    ("part", "rights"),
    [(part, rights) for part in CLOSED for rights in (0o000, 0o300)] + [("", 0o000)],  # 3: to be entered, not listed
)
def test_what_may_not_be_read_is_named_with_the_account_and_what_to_do(part, rights, run, open_folder):
    closed = run / part
    closed.chmod(rights if closed.is_dir() else 0)
    export = ["export", str(run), "--domain", "pen", "--format", "safetensors", "--output", str(open_folder / "out")]
    pictures = open_folder / "a.png"
    Image.new("RGB", (32, 32)).save(pictures)
    with without_rights():
        account = "nobody" if os.geteuid() == NOBODY else ""
        with pytest.raises(Unreadable) as caught:
            fmtda.load(run, "pen")
        results = [CliRunner().invoke(cli, words) for words in (export, ["predict", str(run), str(pictures)])]
    for said in (str(caught.value), *(result.stderr for result in results)):
        assert f"{closed}: the account {account}" in said and "may not read it" in said
        assert f":rX {closed}" in said
        assert "Traceback" not in said and len(said.strip().splitlines()) == 1
    assert [result.exit_code for result in results] == [2, 2]
    assert not (open_folder / "out").exists()


def test_what_is_missing_is_told_as_before(run):
    shutil.rmtree(run / "uploads" / "pen")
    shutil.rmtree(run / "clients")
    with without_rights():
        model = fmtda.load(run, "blend")
    assert "last uploaded it" in model.parts
    shutil.rmtree(run / "uploads")
    with without_rights():
        assert "F_g alone: nothing of pen/0000 is here" in fmtda.load(run, "pen").parts


@pytest.mark.parametrize("part", ["uploads", "uploads/source_mixture.safetensors"])
def test_adapting_says_so_too_and_not_that_the_run_has_to_end(part, run):
    (run / part).chmod(0)
    with without_rights(), pytest.raises(Unreadable, match=f"{run / part}: the account"):
        fmtda.adapt(run, torch.zeros(2, 3, 32, 32, dtype=torch.uint8))


@pytest.mark.parametrize("part", ["metrics.jsonl", "summary.json", "illustration.safetensors", "config.toml"])
def test_a_report_leaves_nothing_out_in_silence(part, run):
    (run / "metrics.jsonl").write_text('{"round": 0, "phase": "round", "failures": [], "clients": {}}\n')
    (run / part).touch()
    (run / part).chmod(0)
    with without_rights(), pytest.raises(Unreadable, match=f"{run / part}: the account"):
        Run.read(run)


def test_the_card_of_an_export_does_not_say_that_nothing_was_measured(run, open_folder):
    (run / "summary.json").chmod(0)
    open_folder.chmod(0o777)
    export = ["export", str(run), "--domain", "pen", "--format", "safetensors", "--output", str(open_folder / "out")]
    with without_rights():
        result = CliRunner().invoke(cli, export)
    assert result.exit_code == 2 and f"{run / 'summary.json'}: the account" in result.stderr, result.output


@pytest.mark.parametrize("part", ["", "kept.json", "global.safetensors", "localised.safetensors"])
def test_a_clients_folder_is_no_other(part, open_folder, client_of, settings_of):
    client = dataclasses.replace(client_of(settings_of()), folder=open_folder / "svhn" / "0000")
    client.keep("localised.safetensors", classifier={"weight": torch.ones(1)})
    keep_model(client, build("small-cnn", 10, (3, 32, 32), 0).state_dict())
    closed = client.folder / part
    closed.chmod(0)
    with without_rights(), pytest.raises(Unreadable, match=f"{closed}: the account"):
        fmtda.load(client.folder)


def test_a_saved_model_that_may_not_be_read_is_not_called_none(open_folder):
    file = open_folder / "model.safetensors"
    save_file({"a": torch.ones(1)}, file)
    file.chmod(0)
    with without_rights(), pytest.raises(Unreadable, match=f"{file}: the account"):
        fmtda.load(file)


def test_what_is_found_is_what_glob_finds(run, tmp_path):
    for pattern in ("*/*/*.safetensors", "*", "round-*", "*/0000", "*.safetensors"):
        for folder in (run / "uploads", run / "checkpoints", run / "config.toml", tmp_path / "missing"):
            assert matching(folder, pattern) == sorted(folder.glob(pattern))
