"""``fmtda export``: one file that other programs run to the same probabilities, and its card."""

import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fmtda.domains.family import DataSpec
from fmtda.domains.registry import family
from fmtda.face.command_line import cli
from fmtda.inference.adapted_model import AdaptedModel
from fmtda.inference.export_formats import output_names


def export(*words: object, status: int = 0):
    result = CliRunner().invoke(cli, ["export", *map(str, words)])
    assert result.exit_code == status, result.output
    return result


def test_onnxruntime_gives_the_models_probabilities_for_any_batch(adapted, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    export(adapted, "--domain", "pen", "--output", tmp_path / "pen.onnx")
    model = AdaptedModel.load(adapted, "pen")
    session = onnxruntime.InferenceSession(str(tmp_path / "pen.onnx"))
    pictures = family("digits").load("pen", "test", DataSpec()).inputs[:7]
    for batch in (pictures, pictures[:1]):
        outputs = dict(zip(output_names(model), session.run(None, {"inputs": batch.numpy()}), strict=True))
        expected = model.predict(batch)
        np.testing.assert_allclose(outputs["probabilities"], expected.probabilities, atol=1e-4)
        for head, p in expected.by_head.items():
            np.testing.assert_allclose(outputs[f"probabilities_{head}"], p, atol=1e-4)
    assert [output.name for output in session.get_outputs()] == output_names(model)


def test_segmentation_runs_in_onnxruntime_too(adapted_streets, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    export(adapted_streets, "--domain", "dusk", "--output", tmp_path / "dusk.onnx")
    pictures = family("streets").load("dusk", "test", DataSpec()).inputs[:3]
    session = onnxruntime.InferenceSession(str(tmp_path / "dusk.onnx"))
    (probabilities,) = session.run(["probabilities"], {"inputs": pictures.numpy()})
    np.testing.assert_allclose(
        probabilities, AdaptedModel.load(adapted_streets, "dusk").predict(pictures).probabilities, atol=1e-4
    )


def test_torch_export_gives_the_models_probabilities(adapted, tmp_path):
    export(adapted, "--domain", "blend", "--format", "torch-export", "--output", tmp_path / "blend.pt2")
    pictures = family("digits").load("blend", "test", DataSpec()).inputs[:5]
    outputs = torch.export.load(tmp_path / "blend.pt2").module()(pictures)
    torch.testing.assert_close(outputs[0], AdaptedModel.load(adapted, "blend")(pictures), atol=1e-5, rtol=0)


def test_a_safetensors_file_is_a_model_for_predict_and_its_card_tells_what_it_is(adapted, pictures_of, tmp_path):
    file = tmp_path / "pen.safetensors"
    export(adapted, "--domain", "pen", "--format", "safetensors", "--output", file)
    folder = pictures_of("digits", "pen", 3)
    result = CliRunner().invoke(cli, ["predict", str(file), str(folder)])
    assert result.exit_code == 0 and "looks like pen" in result.stdout
    card = (tmp_path / "pen.safetensors.md").read_text()
    for text in ("`handwritten` of `digits`", "accuracy in percent", "uint8 (B, 3, 32, 32)", "Meant for", "calibrated"):
        assert text in card
    assert str(adapted) not in card


def test_a_missing_extra_is_named_with_the_command_that_installs_it(adapted, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = export(adapted, "--domain", "pen", "--output", tmp_path / "pen.onnx", status=2)
    assert "pip install -e '.[export]'" in result.stderr


def test_bad_input_is_named(adapted, tmp_path):
    assert "allowed are onnx, safetensors, torch-export" in export(adapted, "--format", "tflite", status=2).stderr
    assert "allowed are blend, pen" in export(adapted, "--domain", "mars", status=2).stderr
    assert "this is a folder" in export(adapted, "--domain", "pen", "--output", tmp_path, status=2).stderr
