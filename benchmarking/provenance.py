"""Tells where and with what something was measured: machine, commit, time. No path and no host name."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from fmtda.server.run_directory import versions

ROOT = Path(__file__).parents[1]

RESULTS = "benchmarks/results"


def provenance() -> dict[str, Any]:
    """Tell everything that a figure should be read with, for a JSON file."""
    return {"when": now(), "commit": commit(), "machine": machine(), "versions": versions()}


def now() -> str:
    """Tell the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def machine() -> dict[str, Any]:
    """Tell cores, memory in GiB, the processor's name, and the GPU's if torch sees one."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "processor": _processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def commit() -> str | None:
    """Tell the checkout's commit, ``-changed`` behind it if tracked files differ from it; None outside a checkout.

    Results that were measured since the commit are no change.
    """
    if not (ROOT / ".git").exists():
        return None
    described = _git("describe", "--always", "--exclude=*")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", f":(exclude){RESULTS}")
    return described and described + ("-changed" if changed else "")


def _git(*words: str) -> str | None:
    """What git says in the checkout; None if it says nothing."""
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip() or None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
