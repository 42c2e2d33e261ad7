"""What breaks in a deployment, and what holds then: real processes that are killed, hang, return, or don't belong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from real_nodes import APP, Deployment, needs_nginx
from real_runs import arrays, command, metrics, overrides, simulate, small

from fmtda.face.deploy.certificates import new_authority
from fmtda.face.deploy.node_keys import node_key_pair

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000), needs_nginx]

OVERRIDES = overrides(small())
CLIENTS = ["blend", "fonts", "pen"]


@pytest.fixture
def deployed(tmp_path):
    """Three registered clients of a SuperLink, started as their page says."""
    deployment = Deployment(tmp_path / "federation", CLIENTS)
    try:
        deployment.start_superlink()
        deployment.register()
        for client in CLIENTS:
            deployment.start_supernode(client)
        deployment.wait_for_nodes(len(CLIENTS))
        yield deployment
    finally:
        deployment.close()


def checkpoint(run, server_round):
    return run / "checkpoints" / f"round-{server_round:06d}"


def lines(run):
    """The lines of metrics.jsonl of whole rounds."""
    path = run / "metrics.jsonl"
    return [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []


def summary(run):
    return json.loads((run / "summary.json").read_text())


def failed_in(line):
    """The clients that a round's failures name."""
    return {failure.split("/")[0] for failure in line["failures"]}


def test_a_round_ends_without_clients_that_were_killed_or_hang_and_they_come_back(deployed, tmp_path):
    run, timeout = tmp_path / "run", 60
    deployed.begin_run("run", f'{OVERRIDES} rounds=4 timeout={timeout}.0 output="{run}"')
    deployed.wait_for(lambda: checkpoint(run, 0).exists(), "the pre-trained model")
    deployed.wait_for(lambda: deployed.running("pen", "flwr-clientapp"), "the client to train")
    deployed.kill("blend")
    hanging = deployed.running("pen", "flwr-clientapp")
    for process in hanging:
        process.send_signal(signal.SIGSTOP)
    deployed.wait_for(lambda: len(lines(run)) >= 2, "round 1")
    first = lines(run)[1]
    assert "fonts" not in failed_in(first)
    assert {"blend", "pen"} & failed_in(first)
    assert first["clients"]["fonts/0000"]["train"]["num-examples"] > 0

    deployed.start_supernode("blend")
    for process in hanging:
        process.send_signal(signal.SIGCONT)
    deployed.wait_for(lambda: deployed.ended("run"), "the end of the run")
    assert (run / "summary.json").exists(), deployed.all_logs()
    last = lines(run)[-1]
    assert last["round"] == 4
    assert last["failures"] == []
    assert set(summary(run)["accuracy"]) == set(CLIENTS)


def test_who_does_not_belong_is_refused_and_the_run_goes_on(deployed, tmp_path):
    stranger, port = tmp_path / "stranger", deployed.spare_ports
    stranger.mkdir()
    (stranger / "unregistered.key").write_bytes(node_key_pair()[0])
    (stranger / "other.crt").write_bytes(new_authority("127.0.0.1").certificate)
    node = deployed.folder / "clients" / "pen"
    superlink = f"127.0.0.1:{deployed.port}"
    authority, key = ["--root-certificates", f"{node}/ca.crt"], ["--auth-supernode-private-key", f"{node}/node.key"]
    unregistered = ["--auth-supernode-private-key", f"{stranger}/unregistered.key"]
    attempts = {
        "unregistered": [*authority, *unregistered, "--port", str(port[0])],
        "without-key": [*authority, "--port", str(port[2])],
        "other-authority": ["--root-certificates", f"{stranger}/other.crt", *key, "--port", str(port[1])],
    }
    for name, options in attempts.items():
        words = ["flower-supernode", "--superlink", superlink, *options]
        deployed.start(name, " ".join([*words, "--max-retries 3 --node-config 'domain=\"street\"'"]))
    plain = subprocess.run(
        [sys.executable, "-c", f"import httpx; httpx.post('http://{superlink}/v1/fleet/pull-messages')"],
        capture_output=True,
        text=True,
    )
    assert plain.returncode != 0

    run = tmp_path / "run"
    deployed.carry_out(deployed.run_block(f'{OVERRIDES} rounds=1 output="{run}"'))
    assert summary(run)["failures"] == 0
    assert set(summary(run)["accuracy"]) == set(CLIENTS)
    for name in attempts:
        deployed.wait_for(lambda name=name: deployed.ended(name), f"{name} to give up")
        assert deployed.processes[name].returncode != 0
        assert "SuperNode ID" not in deployed.log(name)
    assert deployed.log("superlink").count("Activated node_id") == len(CLIENTS)


def rooms():
    """The folders of all packages of the checkout, by pyproject.toml."""
    tool = tomllib.loads((APP / "pyproject.toml").read_text())["tool"]
    return sorted({folder.split("/")[0] for folder in tool["setuptools"]["package-dir"].values()})


@pytest.fixture
def spoiled_app(tmp_path):
    """A copy of the app in which the client `pen` misbehaves, and what a process needs to use it."""
    copy = tmp_path / "app"
    for room in rooms():
        shutil.copytree(APP / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(APP / file, copy / file)
    shutil.copy(Path(__file__).with_name("spoiled_training.py"), copy / "clients" / "spoiled_training.py")
    with (copy / "clients" / "app.py").open("a") as code:
        code.write(
            "from fmtda.clients import spoiled_training\n\nspoiled_training.DualAdapt.train = spoiled_training.train\n"
        )
    return copy


def test_junk_from_a_real_client_leaves_the_model_as_if_it_had_sent_nothing(tmp_path, spoiled_app, monkeypatch):
    run, without = tmp_path / "run", tmp_path / "without"
    monkeypatch.setenv("SPOIL", "junk")
    deployment = Deployment(tmp_path / "federation", ["blend", "pen"], app=spoiled_app)
    try:
        deployment.start_superlink()
        deployment.register()
        for client in deployment.clients:
            deployment.start_supernode(client)
        deployment.wait_for_nodes(2)
        printed = deployment.carry_out(deployment.run_block(f'{OVERRIDES} rounds=3 output="{run}"'))
    finally:
        deployment.close()
    assert (run / "summary.json").exists(), printed
    reasons = [
        "weight has values that are not finite",
        "weight is float32[25000000]",
        "unexpected arrays ['fc.weight']",
    ]
    for line, reason in zip(lines(run)[1:], reasons, strict=True):
        (failure,) = line["failures"]
        assert failure.startswith("pen/0000: dropped, ")
        assert reason in failure

    options = ["--targets", "blend,pen", "--rounds", "3", "--output", str(without)]
    environment = {**os.environ, "SPOIL": "nothing", "PYTHONPATH": str(spoiled_app)}
    subprocess.run(command(*options), check=True, env=environment, cwd=spoiled_app)
    assert all("nothing is sent" in line["failures"][0] for line in lines(without)[1:])
    model = {name: array for name, array in arrays(without).items() if name.startswith("checkpoints")}
    assert arrays(run) == model


def test_a_killed_serverapp_and_a_killed_superlink_cost_nothing_but_time(deployed, tmp_path):
    run, simulated = tmp_path / "run", tmp_path / "simulated"
    config = f'{OVERRIDES} rounds=3 output="{run}"'
    deployed.begin_run("first", config)
    deployed.wait_for(lambda: checkpoint(run, 1).exists(), "round 1")
    (server_app, *_) = deployed.running("superlink", "flwr-serverapp")
    server_app.kill()
    deployed.wait_for(lambda: deployed.ended("first"), "the run to be given up")

    deployed.begin_run("second", f"{config} resume=true")
    deployed.wait_for(lambda: checkpoint(run, 2).exists(), "round 2")
    deployed.kill("superlink")
    deployed.kill("second")
    assert not (run / "summary.json").exists()

    deployed.start_superlink()
    assert deployed.carry_out(deployed.block("supernode list")).count("online") == len(CLIENTS)
    assert deployed.log("superlink").count("Created node_id") == len(CLIENTS)  # before it was killed, and never again
    printed = deployed.carry_out(deployed.run_block(f"{config} resume=true"))
    assert (run / "summary.json").exists(), printed + deployed.all_logs()
    simulate("--rounds", 3, "--targets", ",".join(CLIENTS), "--output", simulated)
    assert metrics(run) == metrics(simulated)
    assert arrays(run) == {name: array for name, array in arrays(simulated).items() if name.startswith("checkpoints")}
