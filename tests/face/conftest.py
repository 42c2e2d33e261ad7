"""Finished runs that several end-to-end tests look at."""

from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from in_process_runs import finish
from PIL import Image
from real_runs import TINY, generate, simulate

from fmtda.domains.family import DataSpec
from fmtda.domains.registry import family


@pytest.fixture(scope="session")
def made_once(tmp_path_factory, worker_id):
    """Make a run that all of pytest-xdist's processes look at: one makes it, the others wait."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent

    def run_and_print(name: str, make: Callable[[Path], str]) -> tuple[Path, str]:
        folder = shared / name
        printed = folder / "printed.txt"
        with FileLock(shared / f"{name}.lock"):
            if not printed.exists():
                folder.mkdir(exist_ok=True)
                printed.write_text(make(folder / "run"))
        return folder / "run", printed.read_text()

    return run_and_print


@pytest.fixture(scope="session")
def finished(made_once) -> tuple[Path, str]:
    """One finished run of the default preset with `personalise`, and what it printed."""

    def make(run: Path) -> str:
        return simulate("--rounds", 2, "--output", run, "-c", "dualadapt.personalise.on=true").stdout

    return made_once("finished", make)


@pytest.fixture(scope="session")
def generated(made_once) -> tuple[Path, str]:
    """One run of a tiny DDPM over two clients, finished, gone on with for another round, and what that printed."""

    def make(run: Path) -> str:
        generate("ddpm", *TINY, "--clients", 2, "--rounds", 1, "--output", run)
        return generate("--resume", run, "--rounds", 2).stdout

    return made_once("generated", make)


@pytest.fixture(scope="session")
def adapted(tmp_path_factory) -> Path:
    """One finished run of the default preset with `personalise`, over one client of `pen` and of `blend` each."""
    output = tmp_path_factory.mktemp("adapted") / "run"
    few = {
        "data.targets": "pen,blend",
        "data.target-limit": 120,
        "data.source-limit": 200,
        "pretraining.steps": 20,
        "dualadapt.client-steps": 80,
        "dualadapt.client-batch": 32,
        "dualadapt.personalise.on": True,
    }
    return finish(output, few)


@pytest.fixture(scope="session")
def adapted_streets(tmp_path_factory) -> Path:
    """One finished run of segmentation, over one client of `dusk`."""
    output = tmp_path_factory.mktemp("streets") / "run"
    few = {"data.target-limit": 8, "data.source-limit": 20, "pretraining.plain-steps": 1}
    return finish(output, {"data.name": "streets", "data.targets": "dusk", **few})


@pytest.fixture(scope="session")
def pictures_of(tmp_path_factory):
    """A folder with the test pictures of a domain, called ``NUMBER-LABEL.png``; of scenes ``NUMBER-0.png``."""

    def write(data: str, domain: str, count: int | None = None) -> Path:
        folder = tmp_path_factory.mktemp(domain)
        examples = family(data).load(domain, "test", DataSpec())
        labels = examples.labels if examples.labels.ndim == 1 else examples.labels[:, 0, 0] * 0
        for i, (picture, label) in enumerate(zip(examples.inputs[:count], labels[:count], strict=True)):
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / f"{i:04d}-{label}.png")
        return folder

    return write
