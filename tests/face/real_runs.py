"""Runs of the real thing for the end-to-end tests: the ``fmtda`` command in its own process, with Flower and Ray."""

import json
import subprocess
import sys
from pathlib import Path

from safetensors.numpy import load_file

SMALL = ("-c", "pretrain-steps=30", "-c", "plain-steps=10", "-c", "server-steps=4", "-c", "client-steps=6")
SMALL += ("-c", "self-train-steps=4", "-c", "personalise-steps=4", "-c", "local-steps=4", "-c", "server-threads=1")
SMALL += ("-c", "source-limit=500", "-c", "target-limit=200")


def command(*options: object) -> list[str]:
    """The command line of a small simulation."""
    return [sys.executable, "-m", "fmtda", "simulate", *SMALL, *map(str, options)]


def simulate(*options: object) -> subprocess.CompletedProcess[str]:
    """Run a small simulation to its end."""
    done = subprocess.run(command(*options), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def metrics(run: Path) -> list[dict]:
    """The lines of metrics.jsonl without what a clock measured."""
    return [_timeless(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]


def arrays(run: Path) -> dict[str, bytes]:
    """Every array of the last checkpoint and of the clients' folders, as bytes."""
    files = [sorted((run / "checkpoints").glob("round-*"))[-1] / "model.safetensors"]
    files += sorted((run / "clients").rglob("*.safetensors"))
    return {
        f"{file.relative_to(run)}:{name}": array.tobytes() for file in files for name, array in load_file(file).items()
    }


TINY = ("-c", "local-steps=2", "-c", "local-batch=8", "-c", "width=8", "-c", "image-size=8", "-c", "timesteps=30")
TINY += ("-c", "implicit-steps=3", "-c", "sample-count=4", "-c", "quality-samples=0", "-c", "server-threads=1")
TINY += ("-c", "learning-rate-schedule=constant")  # so that a finished run can go on


def generate(*options: object) -> subprocess.CompletedProcess[str]:
    """Run a small `fmtda generate` to its end."""
    words = [sys.executable, "-m", "fmtda", "generate", *map(str, options)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def _timeless(value):
    if isinstance(value, dict):
        return {key: _timeless(v) for key, v in value.items() if not key.endswith("seconds")}
    return value
