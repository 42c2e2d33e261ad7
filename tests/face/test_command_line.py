"""Bad input is refused before Flower starts: one line that names it, exit status 2, nothing written."""

import gzip
import subprocess
import sys
from importlib.metadata import version

import pytest
from invoked import invoke, refused


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (
            ("--strategy", "fedsgd"),
            ("strategy=fedsgd", "source-only, adabn, fedavg-self-training, fed-mcd, fed-dann, dualadapt"),
        ),
        (("--data", "cifar"), ("cifar", "digits, digit-five")),
        (("--targets", "blend,mars"), ("mars", "blend, fonts, street, pen")),
        (("--targets", "handwritten"), ("handwritten is the source",)),
        (("--preset", "fast"), ("preset=fast", "'default' or 'paper'")),
        (("--rounds", "-1"), ("rounds=-1", "greater than or equal to 1")),
        (("-c", "round=3"), ("round: no such key", "rounds")),
        (("-c", "client-steps=3"), ("client-steps: no such key", "dualadapt.client-steps")),
        (("-c", "dualadapt=3"), ("dualadapt: no such key", "this is a table; its keys are dualadapt.")),
        (("-c", "fed-mcd.local-steps=3"), ("fed-mcd.local-steps=3", "strategy=fed-mcd has")),
        (("-c", "rounds=many"), ("rounds=many", "integer")),
        (("-c", "rounds"), ("expected KEY=VALUE",)),
        (("-c", "network.name=vgg"), ("network.name=vgg", "small-cnn")),
        (("--clients", "2"), ("clients=2", "4 targets")),
        (("--clients", "100000"), ("clients=100000", "take fewer clients")),
        (("--data", "digit-five"), ("--data-dir",)),
        (("--data", "digit-five", "--data-dir", "/nowhere"), ("/nowhere",)),
        (("-c", "inputs.scenery=true", "-c", "inputs.randomise=false"), ("inputs.scenery", "inputs.randomise")),
        (
            ("-c", "dualadapt.personalise.on=true", "--strategy", "source-only"),
            ("dualadapt.personalise.on", "strategy=source-only"),
        ),
        (
            ("--clients", "40", "-c", "data.partition=dirichlet", "-c", "data.min-examples=99"),
            ("blend", "99", "alpha"),
        ),
        (("--client-cpus", "9999"), ("--client-cpus 9999", "cores")),
        (("--client-gpus", "99"), ("--client-gpus 99", "GPUs")),
    ],
)
def test_bad_settings_are_named_with_what_is_allowed(options, named, tmp_path):
    message = refused("simulate", *options, "--output", tmp_path / "run")
    assert message.startswith("fmtda: error:")
    for text in named:
        assert text in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_ray_cluster_that_isnt_there_is_named(address, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", address)
    message = refused("simulate", "--output", tmp_path / "run")
    assert f"RAY_ADDRESS={address}: nobody answers there" in message and "ray start --head" in message
    assert not (tmp_path / "run").exists()


def test_a_truncated_data_file_is_named(tmp_path):
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = b"\x00\x00\x08\x03" + (60000).to_bytes(4, "big") + 2 * (28).to_bytes(4, "big") + bytes(28 * 28 * 10)
    (raw / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    (raw / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"\x00\x00\x08\x01" + (60000).to_bytes(4, "big")))
    options = ("--data", "digit-five", "--data-dir", tmp_path / "data", "--source", "mnist", "--targets", "fonts")
    message = refused("simulate", *options, "--clients", 1, "--output", tmp_path / "run")
    assert "train-images-idx3-ubyte.gz" in message
    assert not (tmp_path / "run").exists()


def test_an_output_folder_that_is_a_file_or_not_empty_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert "this is a file" in refused("simulate", "--output", tmp_path / "file")
    assert "not empty" in refused("simulate", "--output", tmp_path)
    assert "file" in refused("simulate", "--output", tmp_path / "file" / "below")


def test_a_run_of_another_configuration_is_not_resumed(finished):
    run, _ = finished
    assert "seed=7" in refused("simulate", "--resume", run, "--seed", 7)
    assert "rounds=1" in refused("simulate", "--resume", run, "--rounds", 1)


def test_a_resumed_run_stays_in_its_folder(tmp_path):
    assert "leave --output out" in refused("simulate", "--resume", tmp_path, "--output", tmp_path / "elsewhere")


def test_a_folder_without_a_run_is_not_resumed(tmp_path):
    assert "no run here" in refused("simulate", "--resume", tmp_path)


def test_a_run_whose_settings_were_no_tables_is_not_resumed_and_the_version_is_named(tmp_path):
    flat = '[settings]\nworkload = "adaptation"\ndata = "digits"\nrounds = 3\n\n[versions]\nfmtda = "0.0.9"\n'
    (tmp_path / "config.toml").write_text(flat)
    for words in (("simulate", "--resume", tmp_path), ("report", tmp_path), ("export", tmp_path)):
        message = refused(*words)
        assert (
            message.count("fmtda: error:") == 1 and "this run was made by fmtda 0.0.9 and wants that version" in message
        )


def test_a_wrong_option_ends_with_status_2_and_no_traceback():
    done = subprocess.run([sys.executable, "-m", "fmtda", "simulate", "--round", "3"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--rounds" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_teaches_with_examples():
    result = invoke("simulate", "--help")
    assert "fmtda simulate --preset paper" in " ".join(result.output.split())


def test_help_answers_without_importing_torch():
    slow = "{'torch', 'flwr', 'sklearn', 'ray'}"
    program = f"import sys; import fmtda.face.command_line; print(sorted({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version_tells_what_a_bug_report_needs():
    shown = invoke("--version")
    assert shown.exit_code == 0
    for name in ("fmtda", "flwr", "torch"):
        assert version(name) in shown.stdout
