"""Runs of the real thing for the end-to-end tests: the ``fmtda`` command in its own process, with Flower and Ray."""

import itertools
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from safetensors.numpy import load_file

FEW: dict[str, object] = {
    "pretraining.steps": 30,
    "pretraining.plain-steps": 10,
    "server-threads": 1,
    "data.source-limit": 500,
    "data.target-limit": 200,
}
"""What makes a simulation of any strategy small."""

FEW_STEPS: dict[str, dict[str, object]] = {
    "dualadapt": {"server-steps": 4, "client-steps": 6, "self-training.steps": 4, "personalise.steps": 4},
    "source-only": {},
    "fedavg-self-training": {"local-steps": 4},
    "fed-mcd": {"server-steps": 4, "local-steps": 4},
    "fed-dann": {"server-steps": 4, "local-steps": 4},
}
"""The same of a strategy's own."""


def small(strategy: str = "dualadapt") -> dict[str, object]:
    """Settings of a small simulation, by dotted key."""
    return {**FEW, **{f"{strategy}.{key}": value for key, value in FEW_STEPS[strategy].items()}}


def words_of(config: Mapping[str, object]) -> tuple[str, ...]:
    """The settings as options of a command line."""
    return tuple(word for key, value in config.items() for word in ("-c", f"{key}={value}"))


def overrides(config: Mapping[str, object]) -> str:
    """The settings as ``flwr run --run-config`` takes them: TOML, on one line."""
    return " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())


SMALL = words_of(small())


def command(*options: object) -> list[str]:
    """The command line of a small simulation; what `options` set themselves is left to them."""
    words = list(map(str, options))
    strategy = words[words.index("--strategy") + 1] if "--strategy" in words else "dualadapt"
    given = {pair.partition("=")[0] for flag, pair in itertools.pairwise(words) if flag == "-c"}
    own = {key: value for key, value in small(strategy).items() if key not in given}
    return [sys.executable, "-m", "fmtda", "simulate", *words_of(own), *words]


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


TINY_SETTINGS: dict[str, object] = {
    "training.steps": 2,
    "training.batch": 8,
    "ddpm.width": 8,
    "ddpm.image-size": 8,
    "ddpm.timesteps": 30,
    "ddpm.implicit-steps": 3,
    "samples.count": 4,
    "samples.quality": 0,
    "server-threads": 1,
    "training.schedule": "constant",  # so that a finished run can go on
}
"""Of a DDPM."""

TINY = words_of(TINY_SETTINGS)

SMALL_FLOW = words_of(
    {
        "training.steps": 2,
        "training.batch": 8,
        "graph-nvp.adjacency-turns": 1,
        "graph-nvp.adjacency-width": 8,
        "graph-nvp.node-turns": 1,
        "graph-nvp.node-width": 8,
        "samples.count": 4,
        "samples.quality": 20,
        "server-threads": 1,
    }
)
"""Of a GraphNVP."""


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
