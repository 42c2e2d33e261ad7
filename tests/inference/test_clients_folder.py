"""A deployed client predicts and exports on its own machine, bit by bit what its server's run directory predicts."""

import csv
import json
import shutil

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import fmtda
from fmtda.domains.family import DataSpec
from fmtda.domains.kept_model import ABOUT, MODEL
from fmtda.domains.registry import family
from fmtda.face.command_line import cli
from fmtda.protocol.tables import SettingsError
from fmtda.server.app import run
from fmtda.server.startup import effective_settings
from fmtda.simulation.in_process import InProcessGrid, Silent
from fmtda.strategies.registry import algorithms
from tests.conftest import blink

CLIENTS = ("pen", "blend")


def deployed(place, changes, tamper=None):
    """A federation of nodes that know who they are, as SuperNodes do; returns the server's run directory."""
    few = {"data.targets": "pen,blend", "data.target-limit": 40, "data.source-limit": 60, "rounds": 2}
    settings = effective_settings({**blink({**few, **changes}), "output": str(place / "run")})
    nodes = {
        7 + number: {"domain": domain, "folder": str(place / "machine" / domain)}
        for number, domain in enumerate(CLIENTS)
    }
    return run(InProcessGrid(nodes, tamper=tamper), settings, Silent(), deployed=True).path


def folder_of(place, domain="pen"):
    (found,) = (place / "machine" / domain).glob(f"*/{domain}/0000")
    return found


@pytest.fixture(scope="module")
def personalised(tmp_path_factory):
    """Where a run of DualAdapt with all it has took place."""
    place = tmp_path_factory.mktemp("personalised")
    deployed(place, {"dualadapt.personalise.on": True})
    return place


@pytest.fixture(scope="module")
def pictures():
    return family("digits").load("pen", "test", DataSpec()).inputs[:12]


def same(first, second, inputs):
    """Whether two models say the same, bit by bit."""
    one, two = first.predict(inputs), second.predict(inputs)
    assert list(one.by_head) == list(two.by_head)
    assert all(torch.equal(one.by_head[head], two.by_head[head]) for head in one.by_head)
    assert torch.equal(one.probabilities, two.probabilities)
    assert (one.typicality is None) == (two.typicality is None)
    return one.typicality is None or torch.equal(one.typicality, two.typicality)


@pytest.mark.parametrize("strategy", [each.name for each in algorithms("adaptation")])
def test_every_algorithms_client_predicts_what_the_server_does_with_its_part(strategy, tmp_path, pictures):
    server = deployed(tmp_path, {"strategy": strategy})
    folder = folder_of(tmp_path)
    expected = fmtda.AdaptedModel.load(server, "pen", local=folder)
    shutil.move(server, tmp_path / "gone")
    own = fmtda.load(folder)
    assert same(own, expected, pictures)
    assert (own.client, own.round, own.parts) == ("pen/0000", 2, expected.parts)
    assert own.account.startswith("the model of pen/0000 after round 2: ")
    assert not (server / "clients").exists()


def test_a_personalised_client_does_too_and_needs_no_name(personalised, pictures):
    own = fmtda.load(folder_of(personalised))
    assert own.head == "personal" and own.mixture is not None
    assert same(own, fmtda.AdaptedModel.load(personalised / "run", "pen", local=folder_of(personalised)), pictures)
    assert same(own, fmtda.load(folder_of(personalised), domain="pen"), pictures)
    assert same(own, fmtda.load(folder_of(personalised), domain="pen/0000"), pictures)


def test_the_newest_evaluation_counts_and_training_after_it_changes_the_upload_alone(tmp_path, pictures):
    def stopped(message, reply):
        if message.metadata.message_type == "evaluate" and reply.content["client"]["name"] == "blend/0000":
            evaluated.append(message)
            if len(evaluated) == 2:
                raise KeyboardInterrupt  # the server is stopped after the first client's second evaluation
        return reply

    evaluated = []
    with pytest.raises(KeyboardInterrupt):
        deployed(tmp_path, {}, stopped)
    uploaded, localised = (folder_of(tmp_path) / f"{kind}.safetensors" for kind in ("uploaded", "localised"))
    assert uploaded.stat().st_mtime_ns > localised.stat().st_mtime_ns  # pen has trained in the second round
    assert (fmtda.load(folder_of(tmp_path)).round, fmtda.load(folder_of(tmp_path, "blend")).round) == (1, 2)
    assert fmtda.load(folder_of(tmp_path))(pictures).isfinite().all()


def test_predict_and_export_work_in_the_folder_and_say_whose_model_it_is(personalised, pictures, tmp_path):
    folder, run_directory = folder_of(personalised), personalised / "run"
    shown = tmp_path / "shown"
    shown.mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(shown / f"{number}.png")

    def rows(*words):
        result = CliRunner().invoke(cli, ["predict", *map(str, words), "--output", str(tmp_path / "out.csv")])
        assert result.exit_code == 0, result.output
        return list(csv.reader((tmp_path / "out.csv").open())), result.stderr

    own, told = rows(folder, shown)
    assert own == rows(run_directory, shown, "--domain", "pen", "--local", folder)[0]
    assert "fmtda: labelled by the model of pen/0000 after round 2: its own copy of the network" in told
    file = tmp_path / "pen.safetensors"
    words = ["export", str(folder), "--format", "safetensors", "--output", str(file)]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0 and "the model of pen/0000 after round 2" in result.stdout
    again = fmtda.load(file)
    assert (again.client, again.round) == ("pen/0000", 2)
    assert same(again, fmtda.load(folder), pictures)
    card = (tmp_path / "pen.safetensors.md").read_text()
    assert "pen" in card and "undisclosed" not in card
    assert str(personalised).encode() not in file.read_bytes()


def test_a_simulation_writes_no_second_copy(adapted_digits):
    assert not [*adapted_digits.glob(f"clients/**/{MODEL}"), *adapted_digits.glob(f"clients/**/{ABOUT}")]


@pytest.fixture(scope="module")
def adapted_digits(tmp_path_factory):
    few = {"data.targets": "pen", "data.target-limit": 40, "data.source-limit": 60, "rounds": 1}
    settings = effective_settings({**blink(few), "output": str(tmp_path_factory.mktemp("simulated") / "run")})
    return run(InProcessGrid.simulated(1), settings, Silent()).path


@pytest.fixture
def copy(personalised, tmp_path):
    """The client's folder once more, to be spoiled."""
    return shutil.copytree(folder_of(personalised), tmp_path / "pen" / "0000")


def refused(folder, **given):
    with pytest.raises(SettingsError) as caught:
        fmtda.load(folder, **given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_asked_of_the_wrong_folder_is_said(personalised, copy, tmp_path):
    assert "domain=blend: " in (said := refused(copy, domain="blend")) and "of pen/0000; leave domain out" in said
    assert "is a client's folder itself; leave local out" in refused(copy, local=copy)
    assert "no run here; clients' folders are " in (said := refused(personalised / "machine" / "blend"))
    assert said.endswith(str(folder_of(personalised, "blend")))
    with pytest.raises(SettingsError, match="a client's folder, and this needs the whole run"):
        fmtda.adapt(copy, torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    (copy / ABOUT).unlink()
    assert "a client's folder without the global model" in (said := refused(copy)) and f"--local {copy}" in said
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no run here (no readable config.toml)" in refused(empty)


def test_another_runs_files_in_the_folder_are_told(copy, tmp_path, personalised):
    shutil.copy(folder_of(personalised, "blend") / "localised.safetensors", copy / "localised.safetensors")
    assert "what pen/0000 keeps here is not whole" in refused(copy)


def settled(folder, change):
    """The folder's description changed, as somebody else could write one."""
    about = json.loads((folder / ABOUT).read_text())
    change(about)
    (folder / ABOUT).write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda about: about["settings"].update(rounds="many"), "rounds=many: "),
        (lambda about: about["settings"].update(planet="mars"), "planet: no such key"),
        (lambda about: about["settings"].pop("network"), "network.name"),
        (
            lambda about: about["settings"]["network"].update(name="no\x1b[1m"),
            r"network.name=no\\x1b\[1m: no such name",
        ),
        (lambda about: about["settings"]["data"].update({"classes": "a,b"}), "size mismatch for classifier"),
        (lambda about: about["settings"]["data"].update({"input-shape": "3x900000x900000"}), "size mismatch|too large"),
        (lambda about: about["settings"].update({"data.name": "digits"}), "a dot is in no name"),
        (
            lambda about: about.update(settings={"workload": "ddpm", "strategy": "fedavg"}),
            "ddpm|missing|nothing decides",
        ),
    ],
)
def test_settings_that_dont_fit_are_refused_in_a_line_that_names_the_folder(change, said, copy):
    settled(copy, change)
    with pytest.raises(SettingsError, match=said) as caught:
        fmtda.load(copy)
    assert str(copy) in str(caught.value) and "\x1b" not in str(caught.value)
