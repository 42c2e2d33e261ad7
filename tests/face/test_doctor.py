"""``fmtda doctor`` finds what is wrong, says what to do, and ends with 1 where fmtda can't work."""

import socket

import pytest
import torch
from typer.testing import CliRunner

from fmtda.face import doctor
from fmtda.face.command_line import cli


def examined(*words: str, status: int = 0) -> str:
    result = CliRunner().invoke(cli, ["doctor", *words])
    assert result.exit_code == status, result.output
    return " ".join(result.output.split())


def test_a_machine_that_runs_the_tests_is_fit():
    told = examined("--no-ray")
    for subject in (
        "Python",
        "packages",
        "torchvision",
        "cores",
        "GPU",
        "bfloat16",
        "working folder",
        "cache",
        "extra test",
    ):
        assert subject in told
    assert "fmtda works here" in told


@pytest.mark.parametrize(
    ("capabilities", "found", "advice"),
    [
        ({"avx2": True, "avx512_bf16": True, "amx_bf16": False}, "computes it", "-c network.precision=bfloat16"),
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, "doesn't compute it", "network.precision=float32"),
    ],
)
def test_a_processor_that_knows_bfloat16_is_told_how_to_use_it(capabilities, found, advice, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    finding = doctor._bfloat16()
    assert found in finding.found and advice in finding.advice


def test_ray_is_started_and_stopped():
    finding = doctor._ray()
    if "timed out" in finding.found:
        pytest.skip("Ray gives up on this machine, as busy as it is now")
    assert finding.state == "ok" and "starts here" in finding.found


def test_a_cluster_that_isnt_there_is_broken(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    finding = doctor._ray()
    assert finding.state == "broken" and "RAY_ADDRESS=127.0.0.1:1" in finding.advice


def test_a_package_of_another_version_is_broken_and_the_command_is_there(monkeypatch):
    real = doctor.version
    monkeypatch.setattr(doctor, "version", lambda name: "1.0" if name == "flwr" else real(name))
    told = examined("--no-ray", status=1)
    assert "flwr" in told and "1.0" in told and "pip install" in told and "broken: flwr" in told


def test_a_missing_extra_comes_with_the_whole_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(doctor, "_installed", lambda name: name != "rdkit")
    monkeypatch.setenv("COLUMNS", "200")
    assert "pip install -e '.[generative]'" in examined("--no-ray")


def test_a_cache_that_cant_be_written_to_is_broken(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FMTDA_CACHE", str(tmp_path / "file"))
    assert "FMTDA_CACHE" in examined("--no-ray", status=1)


def test_a_taken_port_is_told_and_is_no_obstacle(monkeypatch):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        monkeypatch.setattr(doctor, "PORTS", {port: "a deployment's SuperLink"})
        (finding,) = doctor._ports()
    assert finding.state == "note" and str(port) in finding.subject and "another port" in finding.advice
    (finding,) = doctor._ports()
    assert finding.state == "ok"


@pytest.mark.parametrize(
    "command",
    [
        "simulate",
        "benchmark",
        "generate",
        "sample",
        "predict",
        "export",
        "doctor",
        "data list",
        "data check",
        "data fetch",
    ],
)
def test_every_subcommands_help_has_an_example(command):
    result = CliRunner().invoke(cli, [*command.split(), "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert f"fmtda {command}" in result.output.split("Example", 1)[1]


def test_the_shell_can_be_taught():
    assert "--install-completion" in CliRunner().invoke(cli, ["--help"]).output
    words = {"_FMTDA_COMPLETE": "complete_bash", "COMP_WORDS": "fmtda pre", "COMP_CWORD": "1"}
    assert CliRunner().invoke(cli, [], prog_name="fmtda", env=words).output.split() == ["predict"]
