"""Makes the runs of `fmtda generate` that a benchmark compares: each in a process of its own, and each once."""

import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmtda.protocol.settings import RunSettings
from fmtda.protocol.tables import Scalar
from fmtda.server.run_directory import read_metrics


def run_to_the_end(run: Path, words: list[str], resources: list[str] | None = None) -> None:
    """Make the run that ``fmtda generate WORDS`` makes, or go on with it; one that is done is left alone.

    Parameters
    ----------
    run : Path
        Its directory, absolute.
    words : list of str
        The model and the options, without places.
    resources : list of str, optional
        Options that say what Ray reserves for a client; they are no part of a run's settings.

    Raises
    ------
    SystemExit
        If its process fails.
    """
    if (run / "summary.json").exists():
        return
    begun = (run / "config.toml").exists()
    options = ["generate", "--resume", str(run)] if begun else ["generate", *words, "--output", str(run)]
    options += resources or []
    print(f"{run.name}: {'goes on' if begun else 'begins'}", flush=True)
    run.parent.mkdir(parents=True, exist_ok=True)
    status = subprocess.run([sys.executable, "-m", "fmtda", *options]).returncode
    if status:
        sys.exit(f"{run.name}: fmtda {shlex.join(options)} ended with {status}")


def settings_words(config: Mapping[str, Any]) -> list[str]:
    """Write ``-c KEY=VALUE`` for each setting, for another command line."""
    return [word for key, value in config.items() for word in ("-c", f"{key}={value}")]


def shown(settings: RunSettings) -> dict[str, Scalar]:
    """Write settings by dotted keys, without those that name a place on this machine."""
    places = {entry.key for entry in type(settings).fields() if entry.meaning.place}
    return {key: value for key, value in settings.flat().items() if key not in places}


def training_seconds(run: Path) -> float:
    """Add up the seconds of training and evaluation, all clients one after the other, over every sitting."""
    lines = read_metrics(run)
    clients = sum(client["seconds"] for line in lines for client in line["clients"].values())
    return clients + sum(line["server_seconds"] for line in lines)
