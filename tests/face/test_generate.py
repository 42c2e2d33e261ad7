"""``fmtda generate`` and ``fmtda sample``: real Flower and Ray once, the rest in this process."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from invoked import invoke, refused
from PIL import Image
from real_runs import SMALL_FLOW, TINY, words_of


def test_ends_with_a_table_a_summary_and_samples(generated):
    run, printed = generated
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["workload"], summary["strategy"], summary["clients"]) == ("ddpm", "fedavg", 2)
    assert (summary["gradient_steps"], summary["failures"]) == (4, 0)
    assert set(summary["loss"]) == {"handwritten"}
    assert summary["uplink_bytes_per_client_round"] > 0
    for text in (
        "continuing after round 1",
        "round 2/2: loss handwritten",
        "ddpm by fedavg on digits: 4 steps",
        f"fmtda sample {run}",
    ):
        assert text in printed
    assert Image.open(run / "samples" / "round-000002.png").size == (8 * 19, 8 * 19)


@pytest.fixture
def copied(generated, tmp_path) -> Path:
    """A copy of the finished run to do things to."""
    return Path(shutil.copytree(generated[0], tmp_path / "copied"))


def pixels(file: Path):
    return np.array(Image.open(file))


def test_sampling_writes_a_grid_that_depends_on_the_seed(copied, tmp_path):
    result = invoke("sample", copied, "--count", 5)
    assert result.exit_code == 0, result.output
    grid = copied / "samples" / "seed-0-count-5-round-2.png"
    assert str(grid) in result.output
    assert pixels(grid).shape == (8 * 19, 8 * 28, 3)
    for seed, file in ((0, tmp_path / "same.png"), (1, tmp_path / "other.png")):
        assert invoke("sample", copied, "--count", 5, "--seed", seed, "--output", file).exit_code == 0
    assert (pixels(tmp_path / "same.png") == pixels(grid)).all()
    assert (pixels(tmp_path / "other.png") != pixels(grid)).any()


def test_sampling_takes_the_sampler_that_is_asked_for(copied, tmp_path):
    printed = [
        invoke("sample", copied, "--count", 2, "--output", tmp_path / "a.png", *options).output
        for options in ((), ("--sampler", "ddim", "--steps", 7), ("--sampler", "ddpm"))
    ]
    assert invoke("sample", copied, "--count", 2, "--sampler", "ddim", "--steps", 7).exit_code == 0
    assert pixels(copied / "samples" / "seed-0-count-2-round-2-ddim-7.png").any()
    assert ["(3)" in printed[0], "(7)" in printed[1], "(30)" in printed[2]] == [True] * 3


def test_sampling_refuses_what_it_cannot_draw_from(copied, generated, finished, tmp_path):
    assert "no run here" in refused("sample", tmp_path)
    assert "workload=adaptation draws nothing" in refused("sample", finished[0])
    assert "--sampler euler: no such sampler; allowed are ddpm, ddim" in refused("sample", copied, "--sampler", "euler")
    assert "this is a folder" in refused("sample", copied, "--output", tmp_path)
    assert "are written as .png" in refused("sample", copied, "--output", tmp_path / "grid.svg")
    assert "there is no folder" in refused("sample", copied, "--output", tmp_path / "nowhere" / "grid.png")
    config = copied / "config.toml"
    original = config.read_text()
    config.write_text(original.replace("width = 8", "width = 16"))
    assert "round 2 holds no ddpm of these settings" in refused("sample", copied)
    config.write_text(original)
    manifest = copied / "checkpoints" / "round-000002" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("ddpm", "ncsn"))
    assert "workload=ddpm: the checkpoint of round 2 is of ncsn" in refused("sample", copied)
    shutil.rmtree(copied / "checkpoints")
    assert f"no whole checkpoint here yet; let it finish a round with: fmtda generate --resume {copied}" in refused(
        "sample", copied
    )
    assert not list((copied / "samples").glob("seed-*"))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), ("no model named", "ddpm, ncsn")),
        (("gan",), ("gan: no such model", "ddpm, ncsn")),
        (("ddpm", "--strategy", "dualadapt"), ("strategy=dualadapt", "allowed are fedavg")),
        (("ddpm", "--local", "--strategy", "fedavg"), ("--local", "one of the two")),
        (("ddpm", "--targets", "mars"), ("mars", "handwritten, blend, fonts, street, pen")),
        (("ddpm", "--data", "streets", "--data-dir", "/nowhere", "-c", "ddpm.image-size=3"), ("ddpm.image-size=3",)),
        (
            ("ddpm", "-c", "preset=paper"),
            ("preset=paper", "workload=ddpm with strategy=fedavg has no such key, adaptation has"),
        ),
        (("ddpm", "-c", "ncsn.langevin-steps=3"), ("ncsn.langevin-steps=3", "ncsn has")),
        (("ddpm", "-c", "ddpm.image-size=15"), ("ddpm.image-size=15",)),
        (("ddpm", "-c", "ddpm.width=12"), ("ddpm.width=12",)),
        (("ddpm", "-c", "ddpm.implicit-steps=2000"), ("ddpm.implicit-steps=2000", "ddpm.timesteps=1000")),
        (("ddpm", "--clients", "3", "--targets", "blend,pen,fonts,street"), ("clients=3", "4 targets")),
        (("ddpm", "--clients", "900"), ("clients=900", "handwritten")),
        (
            ("ddpm", "--clients", "9", "-c", "data.partition=dirichlet", "-c", "data.min-examples=88"),
            ("handwritten", "alpha"),
        ),
        (("ddpm", "--client-gpus", "99"), ("--client-gpus 99", "GPUs")),
    ],
    ids=lambda value: "-".join(map(str, value)).replace("/", "") if isinstance(value, tuple) else "",
)
def test_bad_input_is_refused_with_its_key_before_anything_starts(words, named, tmp_path):
    message = refused("generate", *words, "--output", tmp_path / "run")
    for text in named:
        assert text in message
    assert not (tmp_path / "run").exists()


def test_each_command_continues_its_own_runs_alone(generated, finished):
    assert "continued, with fmtda generate" in refused("simulate", "--resume", generated[0])
    assert "continued, with fmtda simulate" in refused("generate", "--resume", finished[0])
    assert "workload=ncsn: the run in" in refused("generate", "ncsn", "--resume", generated[0])
    assert "seed=7" in refused("generate", "--resume", generated[0], "--seed", 7)


WITHOUT_THE_EXTRA = """
import sys
sys.modules["diffusers"] = None
import fmtda.clients.app, fmtda.server.app
print("both apps are there")
sys.argv = ["fmtda", "generate", "ddpm"]
from fmtda.face.command_line import main
main()
"""


def test_without_the_extra_the_apps_load_and_the_command_names_the_line_that_installs_it(
    generated, tmp_path, monkeypatch
):
    done = subprocess.run([sys.executable, "-c", WITHOUT_THE_EXTRA], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "both apps are there\n")
    assert "workload=ddpm: ddpm needs diffusers, not installed here" in done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert "ddpm needs diffusers" in refused("sample", generated[0])


LOCAL = ("generate", "ddpm", "--local", *TINY, "--rounds", 2)


def test_the_local_reference_runs_in_this_process_and_can_be_sampled(tmp_path):
    result = invoke(*LOCAL, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "ddpm by pooled-data on digits: 4 steps" in result.output
    assert invoke("sample", tmp_path / "run", "--count", 2).exit_code == 0


SMALL_AUTOENCODER = words_of(
    {
        "training.steps": 2,
        "training.batch": 8,
        "mpgvae.message-width": 8,
        "mpgvae.latent": 4,
        "mpgvae.node-width": 8,
        "mpgvae.message-rounds": 1,
        "samples.count": 4,
        "samples.quality": 20,
        "server-threads": 1,
    }
)


def test_molecules_are_read_with_an_account_learned_and_written_as_smiles(tmp_path):
    (tmp_path / "qm9.csv").write_text("smiles\nC1CC\n" + "CCO\nC1CC1\nCC=O\nCCN\nCO\nCCC\nCCF\nOCC=O\nCNC\nCOC\n" * 3)
    options = ("--data", "qm9", "--data-dir", tmp_path, "--local", "--rounds", 1, *SMALL_FLOW)
    result = invoke("generate", "graph-nvp", *options, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "1 of 31 molecules left out: 1 malformed SMILES" in " ".join(result.output.split())
    quality = json.loads((tmp_path / "run" / "summary.json").read_text())["quality"]
    assert quality["count"] == 20 and quality["with_valency_correction"]["corrected"]
    assert invoke("sample", tmp_path / "run", "--count", 5).exit_code == 0
    names = {file.name for file in (tmp_path / "run" / "samples").iterdir()}
    assert {"seed-0-count-5-round-1.smi", "seed-0-count-5-round-1.svg", "round-000001.smi"} <= names


def test_the_autoencoder_of_molecules_runs_and_can_be_sampled(tmp_path):
    options = ("--local", "--rounds", 1, *SMALL_AUTOENCODER)
    result = invoke("generate", "mpgvae", *options, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["quality"]["count"] == 20
    assert invoke("sample", tmp_path / "run", "--count", 5).exit_code == 0


def test_pictures_are_no_molecules_and_the_other_way_round():
    assert "fragments, qm9 or zinc250k" in refused("generate", "graph-nvp", "--data", "digits")
    assert "take data of pictures" in refused("generate", "ddpm", "--data", "fragments")


def test_ctrl_c_ends_the_local_reference_with_the_line_that_resumes_it(tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("fmtda.server.pooled.descend", interrupted)
    result = invoke(*LOCAL, "--output", tmp_path / "run")
    assert result.exit_code == 130
    assert f"interrupted; continue with: fmtda generate --resume {tmp_path / 'run'}" in result.stderr
    monkeypatch.undo()
    assert invoke("generate", "--resume", tmp_path / "run").exit_code == 0


def test_a_run_that_cannot_go_on_says_how_to_continue_it(tmp_path, monkeypatch):
    from fmtda.generative.training import LossNotFinite

    def diverged(*arguments, **options):
        raise LossNotFinite("the loss is nan at step 1")

    monkeypatch.setattr("fmtda.server.pooled.descend", diverged)
    result = invoke(*LOCAL, "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert "stopped: round 1: the loss is nan at step 1" in result.stderr
    assert f"continue with: fmtda generate --resume {tmp_path / 'run'}" in result.stderr


@pytest.mark.parametrize(
    ("command", "example"), [("generate", "fmtda generate ddpm --local"), ("sample", "--steps 20")]
)
def test_help_teaches_with_examples(command, example):
    assert example in " ".join(invoke(command, "--help").output.split())
