"""A model of somebody else: no line of it runs unasked, and whatever is wrong with it is one harmless line."""

import json
import struct
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from typer.testing import CliRunner

import fmtda
from fmtda.adaptation.mixture import fit
from fmtda.adaptation.predictor import Predictor
from fmtda.adaptation.registry import build
from fmtda.domains.kept_model import ABOUT, keep_model
from fmtda.face.command_line import cli
from fmtda.inference.adapted_model import AdaptedModel
from fmtda.protocol.tables import SettingsError
from fmtda.server import checkpoints
from fmtda.server.run_directory import RunDirectory

FOREIGN = """
import os
from pathlib import Path
from fmtda.adaptation.small_networks import small_cnn
from fmtda.domains.digits import Digits
from fmtda.strategies.dualadapt.client import DualAdapt

Path(os.environ["FOREIGN_MARK"]).write_text("it ran")

class Strategy(DualAdapt):
    pass

class Family(Digits):
    pass

network = small_cnn
"""

NAMED = [("strategy", "Strategy"), ("data.name", "Family"), ("network.name", "network")]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The places of a module that leaves a mark where it is imported; and the mark."""
    name = f"foreign_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("FOREIGN_MARK", str(tmp_path / "mark"))
    yield name, tmp_path / "mark"
    sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def network():
    return build("small-cnn", 10, (3, 32, 32), 0).eval()


@pytest.fixture
def file(settings_of, network, tmp_path):
    """A model that is right, saved."""
    mixture = fit(torch.rand(80, 128, generator=torch.Generator().manual_seed(0)), 2, 0)
    predictor = Predictor({"global": network, "local": network}, mixture=mixture, parts="F_g and F_l")
    AdaptedModel(settings_of(), "pen/0000", predictor, 3).save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def rewritten(file, about=None, arrays=None):
    """The file with other metadata, or other arrays."""
    with safe_open(file, "pt") as opened:
        told, state = json.loads(opened.metadata()["fmtda"]), {name: opened.get_tensor(name) for name in opened.keys()}
    told = about(told) if about else told
    state = arrays(state) if arrays else state
    save_file(state, file, metadata={"fmtda": told if isinstance(told, str) else json.dumps(told)})
    return file


def with_setting(key, value):
    def change(told):
        *path, last = key.split(".")
        table = told["settings"]
        for word in path:
            table = table[word]
        table[last] = value
        return told

    return change


def refused(path, **given):
    with pytest.raises(SettingsError) as caught:
        AdaptedModel.load(path, **given)
    said = str(caught.value)
    assert "\n" not in said and said.isprintable() and len(said) < 1500
    assert str(path) in said
    return said


def test_what_is_right_loads(file):
    model = AdaptedModel.load(file)
    assert (model.client, model.round, model.account) == (
        "pen/0000",
        3,
        "the model of pen/0000 after round 3: F_g and F_l",
    )


def test_a_file_with_flat_settings_of_before_loads_too(file):
    def flat(told):
        from fmtda.protocol.tables import flattened

        del told["round"]
        return {**told, "settings": dict(flattened(told["settings"]))}

    assert AdaptedModel.load(rewritten(file, flat)).round is None


@pytest.mark.parametrize(("key", "attribute"), NAMED)
def test_a_saved_model_imports_nothing_unless_that_is_allowed(key, attribute, file, place):
    name, mark = place
    rewritten(file, with_setting(key, f"{name}:{attribute}"))
    said = refused(file)
    assert f"{name}:{attribute}" in said and "--allow-code" in said and "allow_code=True" in said
    assert not mark.exists() and name not in sys.modules
    assert AdaptedModel.load(file, allow_code=True).client == "pen/0000"
    assert mark.read_text() == "it ran"
    assert "--allow-code" in refused(file)  # whoever allowed it once is asked again


@pytest.mark.parametrize(("key", "attribute"), NAMED)
@pytest.mark.parametrize("kind", ["run", "client"])
def test_a_run_directory_and_a_clients_folder_import_nothing_either(
    kind, key, attribute, client_of, settings_of, network, place, tmp_path
):
    name, mark = place
    place_of = f"{name}:{attribute}"
    if kind == "run":
        path = RunDirectory.create(settings_of({"output": str(tmp_path / "run"), "data.targets": "pen"})).path
        checkpoints.write(path / "checkpoints", 1, network.state_dict())
        config = path / "config.toml"
    else:
        client = client_of(settings_of())
        keep_model(client, network.state_dict())
        path, config = client.folder, client.folder / ABOUT
    given = {"strategy": "dualadapt", "data.name": "digits", "network.name": "small-cnn"}[key]
    word = key.rpartition(".")[2]
    before, after = (f'"{word}": "{each}"' if kind == "client" else f'{word} = "{each}"' for each in (given, place_of))
    assert config.read_text().count(before) == 1
    config.write_text(config.read_text().replace(before, after))
    assert f"{name}:{attribute}" in refused(path)
    words = ["export", str(path), "--domain", "pen", "--format", "safetensors", "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 2 and "--allow-code" in result.stderr and "Traceback" not in result.output
    picture = tmp_path / "a.png"
    picture.write_bytes(b"")
    result = CliRunner().invoke(cli, ["predict", str(path), str(picture)])
    assert result.exit_code == 2 and "--allow-code" in result.stderr
    if kind == "run":
        (path / "metrics.jsonl").write_text('{"round": 0, "phase": "round", "failures": [], "clients": {}}\n')
        for command in ("report", "sample") if key != "network.name" else ():  # neither builds a network
            result = CliRunner().invoke(cli, [command, str(path)])
            assert result.exit_code == 2 and "--allow-code" in result.stderr, result.output
        with pytest.raises(SettingsError, match="--allow-code"):
            fmtda.adapt(path, torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert not mark.exists() and name not in sys.modules
    result = CliRunner().invoke(cli, [*words, "--allow-code"])
    assert result.exit_code == 0, result.output
    assert mark.exists()


def test_a_hostile_place_is_shown_harmlessly(file):
    said = refused(rewritten(file, with_setting("strategy", "os\x1b[31m:system" + "x" * 10_000)))
    assert r"os\x1b[31m:system" in said


def header(text, data=b""):
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        struct.pack("<Q", 2**43) + b"{}",
        struct.pack("<Q", 2**64 - 1) + b"{}",
        header(b'{"a":' + b"[" * 100_000),
        header(b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}'),
        header(b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'),
        header(b'{"__metadata__":{"fmtda":"' + b"[" * 100_000 + b'"}}'),
        header(b'{"__metadata__":{"fmtda":"{}"}}'),
        header(b'{"__metadata__":{"fmtda":"1e999"}}'),
    ],
)
def test_a_file_that_is_none_is_one_line(content, tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    assert "no model of fmtda" in refused(file)


def deep(told):
    return {**told, "settings": json.loads('{"a":' * 500 + "1" + "}" * 500)}


@pytest.mark.parametrize(
    ("about", "said"),
    [
        (deep, "written by an earlier version"),
        (lambda told: '{"settings":' * 5000 + "1" + "}" * 5000, "no model of fmtda"),
        (lambda told: {**told, "client": "pen\x1b[31m"}, "no model of fmtda"),
        (lambda told: {**told, "client": 3}, "no model of fmtda"),
        (lambda told: {**told, "round": "3"}, "no model of fmtda"),
        (lambda told: {**told, "heads": ["local"]}, "no model of fmtda"),
        (lambda told: {**told, "heads": ["global", "../x"]}, "no model of fmtda"),
        (lambda told: {**told, "heads": {"global": 1}}, "no model of fmtda"),
        (lambda told: {**told, "heads": ["global", ["global"]]}, "no model of fmtda"),
        (lambda told: {**told, "heads": ["global"]}, "belongs to no part"),
        (lambda told: {**told, "heads": ["global", "local", "personal"]}, "Missing key"),
        (with_setting("rounds", -1), "rounds=-1"),
        (with_setting("rounds", 10**400), "rounds"),
        (with_setting("network.name", "lraspp"), "no model that can be used"),
        (with_setting("data.input-shape", "3x1000000x1000000"), "no model that can be used"),
        (with_setting("data.classes", "a,b"), "size mismatch"),
        (with_setting("data.name", "mars"), "data.name=mars: no such name"),
        (with_setting("workload", "ddpm"), "ddpm"),
    ],
)
def test_what_is_told_of_a_model_and_cant_be_is_one_line(about, said, file):
    assert said in refused(rewritten(file, about))


def with_array(name, change):
    return lambda state: {**state, name: change(state[name])}


CLASSIFIER = "global_network.classifier.weight"


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (with_array(CLASSIFIER, lambda t: t[:3]), "size mismatch for classifier.weight"),
        (with_array(CLASSIFIER, lambda t: t[None]), "size mismatch for classifier.weight"),
        (
            with_array(CLASSIFIER, lambda t: t * torch.nan),
            "classifier.weight (global) holds values that are not finite",
        ),
        (with_array(CLASSIFIER, lambda t: t / 0), "classifier.weight (global) holds values that are not finite"),
        (with_array(CLASSIFIER, lambda t: t.double()), "is float64[10, 128], expected float32[10, 128]"),
        (with_array(CLASSIFIER, lambda t: t.int()), "Only Tensors of floating point"),
        (with_array("mixture_means", lambda t: t[:, :5].contiguous()), "mixture variances have shape"),
        (with_array("mixture_means", lambda t: t * torch.nan), "mixture means hold values that are not finite"),
        (with_array("mixture_variances", lambda t: -t), "mixture variances have minimum"),
        (with_array("mixture_quantiles", lambda t: t[:3]), "mixture quantiles have shape"),
        (with_array("mixture_weights", lambda t: t.double()), "expected float32 over 128 features"),
        (lambda state: {k: v for k, v in state.items() if k != CLASSIFIER}, "Missing key(s) in state_dict"),
        (lambda state: {k: v for k, v in state.items() if k != "mixture_means"}, "means"),
        (lambda state: {**state, "more\x1b[1m": torch.zeros(1)}, "belongs to no part of a model"),
    ],
)
def test_arrays_that_cant_be_are_one_line_that_names_them(arrays, said, file):
    assert said in refused(rewritten(file, arrays=arrays))


def test_parts_told_by_a_file_are_shown_harmlessly(file):
    model = AdaptedModel.load(rewritten(file, lambda told: {**told, "parts": "F_g\x1b[2J\nroot# " + "x" * 10_000}))
    assert model.account.isprintable() and len(model.account) < 500


@pytest.mark.parametrize("change", [lambda t: t[:3], lambda t: t * torch.nan, lambda t: t.double()])
def test_a_clients_folder_and_a_run_are_checked_like_a_saved_model(change, client_of, settings_of, network, tmp_path):
    state = {**network.state_dict(), "classifier.weight": change(network.state_dict()["classifier.weight"])}
    client = client_of(settings_of())
    keep_model(client, state)
    assert "classifier.weight" in refused(client.folder)
    run = RunDirectory.create(settings_of({"output": str(tmp_path / "run"), "data.targets": "pen"})).path
    checkpoints.write(run / "checkpoints", 1, state)
    assert "classifier.weight" in refused(run, domain="pen")


def test_a_damaged_own_part_is_named_and_no_weaker_model_takes_its_place(settings_of, network, tmp_path):
    run = RunDirectory.create(settings_of({"output": str(tmp_path / "run"), "data.targets": "pen"})).path
    checkpoints.write(run / "checkpoints", 1, network.state_dict())
    part = run / "clients" / "pen" / "0000" / "localised.safetensors"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"\x00" * 30)
    with pytest.raises(SettingsError, match=f"{part}: damaged .*remove it to go on without"):
        AdaptedModel.load(run, "pen")
