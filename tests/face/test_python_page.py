"""docs/python.md: its code runs as it stands, and adapting is the client's own doing."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

import fmtda
from fmtda.domains.examples import DataError
from fmtda.domains.family import DataSpec
from fmtda.domains.registry import family
from fmtda.protocol.tables import SettingsError

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
CODE = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
"""A run's model in a notebook, and a run in this process."""


def test_the_pages_code_runs_as_it_stands(adapted, pictures_of, tmp_path, monkeypatch, capsys):
    code = CODE[0]
    assert len([line for line in code.splitlines() if line and not line.startswith(("import", "from"))]) <= 10
    (tmp_path / "runs").mkdir()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(adapted)
    (tmp_path / "pictures" / "new").symlink_to(pictures_of("digits", "street", 30))
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(code, str(PAGE), "exec"), names)
    assert "tensor" in capsys.readouterr().out
    assert names["probabilities"].shape == (30, 10)
    model, pictures = names["adapted"], names["pictures"]
    assert model.client == "new/0000" and model.head == "mean" and set(model.networks) == {"global", "local"}
    assert (tmp_path / "clients" / "new" / "localised.safetensors").exists()
    again = fmtda.AdaptedModel.load(adapted, "new", tmp_path / "clients" / "new")
    assert torch.equal(again(pictures), model(pictures))
    # learned from these pictures: their likelihood is not what another domain's mixture gives
    assert not torch.equal(model(pictures), fmtda.AdaptedModel.load(adapted, "pen")(pictures))


def test_the_pages_run_in_this_process_ends_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(CODE[1], str(PAGE), "exec"), names)
    assert float(capsys.readouterr().out) == names["directory"].metrics()[-1]["accuracy"]["pen"]["mean"] > 0
    assert (tmp_path / "runs" / "small" / "summary.json").exists()


def test_an_earlier_calls_own_network_does_not_speak_for_new_pictures(adapted, tmp_path):
    pen, street = (family("digits").load(domain, "test", DataSpec()).inputs[:30] for domain in ("pen", "street"))
    assert fmtda.adapt(adapted, pen, local=tmp_path / "new", personalise=True).head == "personal"
    assert fmtda.adapt(adapted, street, local=tmp_path / "new").head == "mean"


def test_what_cant_be_adapted_to_is_named(adapted, tmp_path):
    one = family("digits").load("pen", "test", DataSpec()).inputs[:1]
    with pytest.raises(DataError, match="1 examples: two at least"):
        fmtda.adapt(adapted, one)
    with pytest.raises(DataError, match=r"\(1, 1, 8, 8\): this run takes \(N, 3, 32, 32\)"):
        fmtda.adapt(adapted, torch.zeros(1, 1, 8, 8))
    with pytest.raises(DataError, match="no picture in this folder"):
        fmtda.adapt(adapted, tmp_path)
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    with pytest.raises(SettingsError, match="no run here"):
        fmtda.adapt(tmp_path, tmp_path)
