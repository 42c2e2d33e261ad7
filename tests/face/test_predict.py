"""``fmtda predict``: a line a picture, as accurate as the run said, and nothing dropped in silence."""

import csv
import json
import os

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fmtda.adaptation.scores import mean_iou
from fmtda.domains.family import DataSpec
from fmtda.domains.registry import family
from fmtda.face.command_line import cli
from fmtda.inference.pictures import AHEAD, batches, found
from tests.domains.hostile_files import png


def predict(*words: object, status: int = 0):
    result = CliRunner().invoke(cli, ["predict", *map(str, words)])
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result


def test_accuracy_by_the_csv_is_that_of_the_summary(adapted, pictures_of, tmp_path):
    predict(adapted, pictures_of("digits", "pen"), "--domain", "pen", "--output", tmp_path / "pen.csv")
    rows = list(csv.DictReader((tmp_path / "pen.csv").open()))
    right = sum(row["label"] == row["file"].removesuffix(".png")[-1] for row in rows)
    assert 100 * right / len(rows) == pytest.approx(
        json.loads((adapted / "summary.json").read_text())["accuracy"]["pen"]
    )
    for row in rows:
        assert sum(float(row[f"p:{digit}"]) for digit in range(10)) == pytest.approx(1, abs=1e-4)
        assert float(row[f"p:{row['label']}"]) == float(row["probability"]) == float(row["personal"])
        assert (row["looks_like_domain"] == "yes") == (float(row["typicality"]) >= 1 / 32)


def test_without_a_domain_the_mixtures_choose_and_it_is_said(adapted, pictures_of):
    result = predict(adapted, pictures_of("digits", "blend", 20), "--format", "json")
    answer = json.loads(result.stdout)
    assert answer["client"] == "blend/0000" and answer["head"] == "personal"
    assert "blend/0000 was chosen by the mixtures" in result.stderr
    picture = answer["pictures"][0]
    assert sorted(picture["by_head"]) == ["global", "local", "personal"]
    assert picture["share"]["global"] == picture["by_head"]["global"][picture["label"]]
    assert len(answer["pictures"]) == 20 and answer["unreadable"] == []


def test_unreadable_pictures_are_named_counted_and_the_status_tells(adapted, pictures_of, tmp_path):
    folder = pictures_of("digits", "pen", 3)
    (folder / "broken.png").write_bytes((folder / sorted(folder.iterdir())[0].name).read_bytes()[:60])
    result = predict(adapted, folder, "--domain", "pen", status=1)
    assert "3 of 4 pictures" in result.stderr
    assert "1 could not be read" in result.stderr and "broken.png" in result.stderr
    assert "0000-" in result.stdout and "looks like pen" in result.stdout
    result = predict(adapted, folder, "--domain", "pen", "--format", "json", status=1)
    assert "broken.png" in json.loads(result.stdout)["unreadable"][0]


def test_a_picture_of_another_size_mode_and_format_is_taken(adapted, tmp_path):
    Image.new("L", (50, 28), 90).save(tmp_path / "grey.jpg")
    assert "grey.jpg" in predict(adapted, tmp_path / "grey.jpg", "--domain", "pen").stdout


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--domain", "mars"], "domain=mars: this run adapted to no such domain; allowed are blend, pen"),
        (["--format", "xml"], "--format xml: allowed are table, csv, json"),
        (["--output", "/nowhere/a.csv"], "there is no folder /nowhere"),
        (["--device", "tpu"], "device=tpu"),
    ],
)
def test_bad_options_are_named_with_what_is_allowed(words, named, adapted, tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    assert named in " ".join(predict(adapted, tmp_path / "a.png", *words, status=2).stderr.split())


def test_missing_and_empty_folders_are_named(adapted, tmp_path):
    assert "no such file or folder" in predict(adapted, tmp_path / "gone", status=2).stderr
    assert "no picture in this folder" in predict(adapted, tmp_path, status=2).stderr
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    assert "no run here" in predict(tmp_path, tmp_path, status=2).stderr
    (tmp_path / "a.png").write_text("no picture")
    assert "can be read" in predict(adapted, tmp_path, status=2).stderr


def test_a_link_is_followed_where_it_is_named_and_not_out_of_a_folder(adapted, tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "secret.png")
    folder = tmp_path / "uploaded"
    folder.mkdir()
    Image.new("RGB", (32, 32)).save(folder / "a.png")
    (folder / "within.png").symlink_to("a.png")
    assert [file.name for file in found([folder])] == ["a.png", "within.png"]
    (folder / "x.png").symlink_to(tmp_path / "secret.png")
    assert "x.png is a link out of" in predict(adapted, folder, "--domain", "pen", status=2).stderr
    assert found([folder / "x.png"]) == [folder / "x.png"]


def test_pipes_large_pictures_and_odd_names_are_told_and_the_others_labelled(adapted, tmp_path):
    names = ["good.png", "red\x1b[31m.png", os.fsdecode(b"b\xff.png")]
    for name in names:
        Image.new("RGB", (32, 32)).save(tmp_path / name, "PNG")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "large.png").write_bytes(png(9_000, 8_000, colour=0))
    for form in ("table", "csv", "json"):
        done = predict(adapted, tmp_path, "--domain", "pen", "--format", form, status=1)
        assert "3 of 5 pictures" in done.stderr and "\x1b" not in done.stdout + done.stderr
        assert "pipe.png is a pipe and no file" in done.stderr
        assert "large.png has 9,000 x 8,000 pixels; at most 64 million are read" in done.stderr
        assert "good.png" in done.stdout and ("\\udcff" in done.stdout)


def test_few_batches_are_decoded_ahead_of_the_one_at_hand(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    begun: list[object] = []

    def decode(file):
        begun.append(file)
        return np.zeros((3, 4, 4), np.uint8)

    stream = batches(found([tmp_path]) * 400, decode, 20)
    assert len(next(stream)) == 20
    assert len(begun) <= (AHEAD + 1) * 20
    assert sum(len(batch) for batch in stream) == 380


def test_label_maps_have_the_mean_iou_of_the_summary(adapted_streets, pictures_of, tmp_path):
    maps = tmp_path / "maps"
    folder = pictures_of("streets", "dusk")
    predict(adapted_streets, folder, "--domain", "dusk", "--output", maps, "--format", "csv")
    labels = family("streets").load("dusk", "test", DataSpec()).labels[:]
    confusion = np.zeros(len(family("streets").classes) ** 2, dtype=int)
    for file, truth in zip(sorted((maps / "labels").iterdir()), labels, strict=True):
        predicted = np.asarray(Image.open(file))
        assert predicted.shape == truth.shape
        cells = truth.numpy().astype(int) * len(family("streets").classes) + predicted
        confusion += np.bincount(cells.ravel(), minlength=len(confusion))
    summary = json.loads((adapted_streets / "summary.json").read_text())
    assert mean_iou(confusion.tolist()) == pytest.approx(summary["accuracy"]["dusk"], abs=1e-4)
    assert (maps / "classes.txt").read_text().split() == list(family("streets").classes)
    overlay = Image.open(maps / "overlays" / "0000-0.png")
    assert (overlay.size, overlay.mode) == ((96, 64), "RGB")
    rows = list(csv.DictReader((maps / "predictions.csv").open()))
    assert sum(float(rows[0][f"share:{name}"]) for name in family("streets").classes) == pytest.approx(1, abs=1e-4)


def test_segmentation_needs_a_folder_outside_the_pictures(adapted_streets, pictures_of):
    folder = pictures_of("streets", "dusk", 2)
    assert "name a folder for the label maps" in predict(adapted_streets, folder, "--domain", "dusk", status=2).stderr
    inside = predict(adapted_streets, folder, "--domain", "dusk", "--output", folder / "maps", status=2)
    assert "name a folder outside it" in inside.stderr
