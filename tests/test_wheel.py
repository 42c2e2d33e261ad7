"""The wheel, installed beside PyPI's `clients`, which has a top-level package of the same name as one of our rooms."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOREIGN = "clients"
OURS = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"fmtda"}


def said(*words: object, cwd: Path | None = None) -> str:
    """What a command prints, which has to end well."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([*map(str, words)], cwd=cwd, env=clean, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The Python of a new environment: ours as a wheel, `clients` from PyPI, the rest from the running one."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    generated = ("build", "runs", "*.egg-info", "__pycache__", ".*cache", ".git", "results", ".venv")
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*generated))
    said(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", folder, source)
    venv.create(folder / "env", with_pip=False)
    env_python = folder / "env" / "bin" / "python"
    (wheel,) = folder.glob("fmtda-*.whl")
    pip = [sys.executable, "-m", "pip", "--python", env_python, "install", "-q"]
    said(*pip, "--no-deps", wheel)
    said(*pip, FOREIGN)
    (site_packages,) = (folder / "env" / "lib").glob("python*/site-packages")
    # A line of a .pth is a path alone: what makes the running environment's own fmtda editable is not read there.
    (site_packages / "running.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return env_python


def test_only_fmtda_is_ours_at_the_top(python):
    (site_packages,) = (python.parents[1] / "lib").glob("python*/site-packages")
    top = {path.name for path in site_packages.iterdir()}
    assert "fmtda" in top
    assert OURS & top == {FOREIGN}
    assert {path.name for path in (site_packages / "fmtda").iterdir() if path.is_dir()} - {"__pycache__"} == OURS - {
        "benchmarks"
    }


def test_both_are_imported_each_from_its_own_folder(python, tmp_path):
    code = "import clients, fmtda.clients.app, fmtda.server.app; print(clients.__file__, fmtda.clients.app.__file__)"
    theirs, ours = said(python, "-c", code, cwd=tmp_path).split()[-2:]
    assert theirs.endswith("site-packages/clients/__init__.py")
    assert ours.endswith("site-packages/fmtda/clients/app.py")
    assert Path(ours).is_relative_to(python.parents[1])


def test_the_doctor_finds_the_installed_one_fit(python, tmp_path):
    printed = said(python.with_name("fmtda"), "doctor", cwd=tmp_path)
    assert "fmtda" in printed


def test_the_foreign_one_can_go(python, tmp_path):
    said(sys.executable, "-m", "pip", "--python", python, "uninstall", "-q", "--yes", FOREIGN)
    code = "import fmtda.clients.app; print(fmtda.clients.app.__file__)"
    assert Path(said(python, "-c", code, cwd=tmp_path).split()[-1]).is_file()
