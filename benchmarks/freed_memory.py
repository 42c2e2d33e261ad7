"""What `protocol.runtime.keep_freed_memory` is worth: training steps with glibc as it comes, and told to keep memory.

    python -m benchmarks.freed_memory --output benchmarks/results/freed_memory.json

Every measurement has a process of its own, since a process can't go back; both variants take turns. A step is forward,
backward and AdamW on random inputs, with the batch that pre-training takes; medians over all processes are compared.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional

from adaptation.networks import build
from benchmarks.provenance import provenance
from protocol.runtime import keep_freed_memory, set_threads

STEPS = {
    "small-cnn": ((3, 32, 32), 128, 40),
    "resnet18": ((3, 96, 96), 32, 8),
    "lraspp": ((3, 96, 128), 8, 16),
}
"""Of each network the shape of an input, how many a batch has, and how many steps are measured."""

CLASSES = 10
WARM_UP = 3
"""Steps that don't count."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--repeats", type=int, default=5, help="processes of each variant")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    parser.add_argument("--inside", nargs=2, metavar=("NETWORK", "VARIANT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    set_threads(given.threads)
    if given.inside:
        print(json.dumps(steps(given.inside[0], given.inside[1] == "kept")))
        return
    measured: dict[str, dict[str, list[dict]]] = {name: {"as it comes": [], "kept": []} for name in STEPS}
    for name, variants in measured.items():
        for _ in range(given.repeats):
            for variant, found in variants.items():
                found.append(_in_a_process(name, variant, given.threads))
                print(f"{name}, {variant}: {json.dumps(found[-1])}", flush=True)
    medians = {
        name: {variant: _medians(found) for variant, found in variants.items()} for name, variants in measured.items()
    }
    for name, variants in medians.items():
        before, after = (variants[variant]["step_ms"] for variant in ("as it comes", "kept"))
        print(f"{name}: {before:.1f} ms as it comes, {after:.1f} ms kept, {1 - after / before:.0%} less")
    if given.output:
        command = f"python -m benchmarks.freed_memory --threads {given.threads} --repeats {given.repeats}"
        report = {"command": command, "medians": medians, "measured": measured, **provenance()}
        given.output.write_text(json.dumps(report, indent=1) + "\n")


def steps(name: str, kept: bool) -> dict[str, float]:
    """The median time of a step, and per step the system's time and the pages that had to be brought in."""
    if kept and not keep_freed_memory():
        raise SystemExit("the C library here is not glibc: there is nothing to compare")
    shape, batch, count = STEPS[name]
    network = build(name, CLASSES, shape, seed=0).train()
    inputs = torch.rand(batch, *shape)
    labels = torch.zeros(network(inputs).argmax(dim=1).shape, dtype=torch.int64)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    seconds = []
    for step in range(WARM_UP + count):
        if step == WARM_UP:
            start = resource.getrusage(resource.RUSAGE_SELF)
        began = time.perf_counter()
        loss = functional.cross_entropy(network(inputs), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seconds.append(time.perf_counter() - began)
    end = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "step_ms": 1000 * statistics.median(seconds[WARM_UP:]),
        "system_ms": 1000 * (end.ru_stime - start.ru_stime) / count,
        "page_faults": (end.ru_minflt - start.ru_minflt) / count,
        "peak_mib": end.ru_maxrss / 1024,
    }


def _in_a_process(name: str, variant: str, threads: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.freed_memory", "--threads", str(threads), "--inside", name, variant]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _medians(found: list[dict[str, float]]) -> dict[str, float]:
    return {figure: statistics.median(one[figure] for one in found) for figure in found[0]}


if __name__ == "__main__":
    main()
