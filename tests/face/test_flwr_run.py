"""The same app Flower's own way: ``flwr run``, on a SuperLink of its own."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import psutil
import pytest
from real_runs import TINY_SETTINGS, arrays, metrics, overrides, simulate, small

APP = Path(__file__).parents[2]
ROOMS = {"protocol", "adaptation", "domains", "clients", "strategies", "server", "generative"}
"""What both apps import."""

LOAD = """
import json, sys
from flwr.supercore.object_ref import load_app

for component in ("fmtda.server.app:app", "fmtda.clients.app:app"):
    load_app(component, ImportError, sys.argv[1])
from fmtda.adaptation.registry import AUGMENTATIONS
from fmtda.adaptation.registry import NETWORKS
from fmtda.domains.registry import FAMILIES
from fmtda.generative.registry import MODELS
from fmtda.strategies.registry import ALGORITHMS

for registry in (AUGMENTATIONS, NETWORKS, FAMILIES, MODELS, ALGORITHMS):
    assert all(registry[name] for name in registry)
ours = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "fmtda"}
print(json.dumps({name: module.__file__ for name, module in ours.items()}))
"""

FLWR = Path(sys.executable).with_name("flwr")


@pytest.fixture
def flower(tmp_path):
    """The environment of an isolated SuperLink, which is ended by its process id afterwards."""
    environment = {
        **os.environ,
        "FLWR_HOME": str(tmp_path / "flwr"),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(_free_port()),
        "FLWR_LOCAL_CONTROL_API_PORT": str(_free_port()),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "PATH": f"{FLWR.parent}{os.pathsep}{os.environ['PATH']}",
    }
    yield environment
    port = environment["FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"]
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any("flower-superlink" in word for word in words) and any(port in word for word in words):
            started = process.children(recursive=True)
            process.send_signal(signal.SIGTERM)
            psutil.wait_procs([process], timeout=30)
            for child in started:
                if child.is_running():
                    child.kill()


def flwr_run(environment: dict[str, str], supernodes: int, run_config: str) -> subprocess.CompletedProcess[str]:
    """Run the app on simulated SuperNodes and stream its log to the end."""
    return subprocess.run(
        [str(FLWR), "run", str(APP), "--stream"]
        + ["--federation-config", f"num-supernodes={supernodes} client-resources-num-cpus=1"]
        + ["--run-config", run_config],
        capture_output=True,
        text=True,
        timeout=400,
        env=environment,
    )


def test_flwr_run_gives_the_same_result_as_fmtda_simulate(flower, tmp_path):
    simulate("--rounds", 1, "--output", tmp_path / "simulate")
    done = flwr_run(flower, 4, f'{overrides(small())} rounds=1 output="{tmp_path / "flwr-run"}"')
    assert (tmp_path / "flwr-run" / "summary.json").exists(), done.stdout + done.stderr
    assert metrics(tmp_path / "flwr-run") == metrics(tmp_path / "simulate")
    assert arrays(tmp_path / "flwr-run") == arrays(tmp_path / "simulate")


def test_flwr_run_in_one_go_trains_the_same_generative_model_as_fmtda_generate_in_two(flower, generated, tmp_path):
    run = tmp_path / "flwr-run"
    done = flwr_run(flower, 2, f'workload="ddpm" {overrides(TINY_SETTINGS)} clients=2 rounds=2 output="{run}"')
    assert (run / "summary.json").exists(), done.stdout + done.stderr
    assert metrics(run) == metrics(generated[0])
    assert arrays(run) == arrays(generated[0])


def test_the_wrong_number_of_supernodes_names_the_option(flower, tmp_path):
    done = flwr_run(flower, 2, f'join-timeout=1.0 output="{tmp_path / "run"}"')
    assert "num-supernodes=4" in re.sub(r"\s+", " ", done.stdout + done.stderr)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """What ``flwr build`` makes of the checkout."""
    folder = tmp_path_factory.mktemp("bundle")
    subprocess.run([str(FLWR), "build", "--app", str(APP)], check=True, capture_output=True, cwd=folder)
    (file,) = folder.glob("*.fab")
    return file


def test_the_bundle_holds_the_rooms_that_the_apps_import_and_nothing_else(bundle):
    names = [name for name in zipfile.ZipFile(bundle).namelist() if not name.startswith(".info")]
    rooms = {name.split("/")[0] for name in names}
    assert rooms - {"README.md", "LICENSE"} == {"pyproject.toml", "fmtda", *ROOMS}
    assert [name for name in names if name.startswith("fmtda/")] == ["fmtda/__init__.py"]
    code = {path.relative_to(APP).as_posix() for room in ROOMS for path in (APP / room).rglob("*.py")}
    assert code == {name for name in names if name.split("/")[0] in ROOMS}
    assert bundle.stat().st_size < 1_000_000


def test_the_bundles_own_code_runs_and_needs_no_room_beside_it(bundle, tmp_path):
    """Loaded as Flower does it, elsewhere than in the checkout; whatever a run can choose by name is imported too."""
    zipfile.ZipFile(bundle).extractall(tmp_path / "app")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "app")], capture_output=True, text=True, cwd=tmp_path, timeout=300
    )
    assert done.returncode == 0, done.stderr
    files = {name: Path(file).resolve() for name, file in json.loads(done.stdout).items()}
    assert {"fmtda", *(f"fmtda.{room}" for room in ROOMS)} <= files.keys()
    assert [name for name, file in files.items() if not file.is_relative_to((tmp_path / "app").resolve())] == []


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
