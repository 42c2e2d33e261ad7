"""``fmtda data``: where domains come from, whether files are whole, and downloads."""

import os
import shutil
import subprocess
import sys

import datasets
import pytest
from PIL import Image
from typer.testing import CliRunner

from fmtda.domains.examples import DataError
from fmtda.domains.hugging_face import write_folders
from fmtda.domains.registry import FAMILIES, family
from fmtda.face.command_line import cli


def data(*words: object, status: int = 0) -> str:
    result = CliRunner().invoke(cli, ["data", *map(str, words)])
    assert result.exit_code == status, result.output
    return " ".join((result.output).split())


def test_the_list_says_where_every_family_comes_from():
    told = data("list")
    for name in FAMILIES:
        assert name in told
        assert family(name).origin.split()[0] in told


def test_whole_files_pass_and_are_counted_when_they_are_read():
    assert "headers and sizes are right" in data("check", "digits", "pen")
    assert "1,000 to train, 149 to test" in data("check", "digits", "pen", "--read")


def test_a_missing_file_is_named_and_the_status_tells(tmp_path):
    told = data("check", "digit-five", "svhn", "fonts", "--data-dir", tmp_path, status=1)
    assert "broken" in told and "train_32x32.mat" in told and "whole" in told


def test_unknown_names_are_refused_with_those_there_are(tmp_path):
    assert "allowed are digits, digit-five" in data("check", "cifar", status=2)
    assert "allowed are blend, fonts" in data("check", "digits", "mars", status=2).replace("handwritten, ", "")
    assert "mnist, usps, svhn, pacs, office-home" in data("fetch", "mars", "--data-dir", tmp_path, status=2)


def picture(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20), "red").save(file)


@pytest.fixture
def mixed(tmp_path):
    """A folder whose first domain has no labels."""
    for name in "abc":
        picture(tmp_path / "alpha" / f"{name}.png")
        for kind in ("cat", "dog"):
            picture(tmp_path / "labelled" / kind / f"{name}.png")
    return tmp_path


def test_the_first_domain_with_labels_is_the_source(mixed):
    assert "names are right" in data("check", "image-folders", "--data-dir", mixed)
    assert "has 0 class folders" in data("check", "image-folders", "--data-dir", mixed, "--source", "alpha", status=2)


def test_a_clients_own_folder_has_no_labels(mixed):
    shutil.rmtree(mixed / "labelled")
    assert "has 0 class folders" in data("check", "image-folders", "--data-dir", mixed, status=2)
    read = data("check", "image-folders", "--data-dir", mixed, "--classes", "cat,dog", "--read")
    assert "whole" in read and "to train" in read


def test_an_empty_picture_is_found_by_reading(mixed):
    (mixed / "alpha" / "a.png").write_bytes(b"")
    assert "--read looks inside" in data("check", "image-folders", "--data-dir", mixed)
    assert "broken" in data("check", "image-folders", "alpha", "--data-dir", mixed, "--read", status=1)


def test_the_list_says_what_is_wrong_with_a_folder(mixed):
    assert "there is no such folder" in data("list", "--data-dir", mixed / "elsewhere", status=2)
    shutil.rmtree(mixed / "labelled")
    told = data("list", "--data-dir", mixed)
    assert "alpha" in told and "class" in told


def test_a_set_of_the_hub_becomes_folders_that_are_read(tmp_path, monkeypatch):
    pictures = [Image.new("RGB", (20, 20), (10 * i, 0, 0)) for i in range(12)]
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "domain": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
        }
    )
    rows = {"image": pictures, "domain": ["photo"] * 8 + ["sketch"] * 4, "label": [0, 1] * 6}
    rows = datasets.Dataset.from_dict(rows, features=features)
    write_folders(rows, tmp_path, "pacs")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo", "sketch"]
    assert len(list((tmp_path / "photo" / "dog").glob("*.png"))) == 4
    assert "photo" in data("check", "image-folders", "--data-dir", tmp_path)
    assert "pacs is in" in data("fetch", "pacs", "--data-dir", tmp_path)  # there already
    assert "is no download of office-home" in data("fetch", "office-home", "--data-dir", tmp_path, status=2)
    shutil.rmtree(tmp_path / "sketch")  # as a kill between two domains leaves it
    monkeypatch.setattr("flwr_datasets.FederatedDataset.load_split", lambda self, split: rows)
    assert "pacs is in" in data("fetch", "pacs", "--data-dir", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo", "sketch"]


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", "..", ""])
@pytest.mark.parametrize("what", ["domain", "label"])
def test_names_out_of_the_hub_write_nothing_elsewhere(what, name, tmp_path):
    names = ["cat", name] if what == "label" else ["cat", "dog"]
    features = {
        "image": datasets.Image(),
        "domain": datasets.Value("string"),
        "label": datasets.ClassLabel(names=names),
    }
    domains = [name if what == "domain" else "photo"]
    rows = {"image": [Image.new("RGB", (9, 9))], "domain": domains, "label": [1]}
    rows = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    with pytest.raises(DataError, match="which no folder may be"):
        write_folders(rows, tmp_path / "a" / "b", "pacs")
    assert not list(tmp_path.rglob("*"))


def test_offline_says_what_to_do_instead(tmp_path):
    words = [sys.executable, "-m", "fmtda", "data", "fetch", "pacs", "--data-dir", str(tmp_path / "PACS")]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **offline}, timeout=120)
    assert done.returncode == 2
    assert "could not be downloaded" in done.stderr and "by hand" in done.stderr
