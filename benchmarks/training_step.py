"""Measures a training step: with glibc as it comes, told to keep freed memory as in every run, and in bfloat16 too.

    python -m benchmarks.training_step --output benchmarks/results/training_step.json

Every measurement has a process of its own, since `protocol.runtime.keep_freed_memory` can't be taken back, and the
variants take turns. A step is forward, backward and AdamW on random inputs, with the batch that pre-training takes.
Medians over all processes are compared.
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

from fmtda.adaptation.registry import build
from fmtda.benchmarking.provenance import provenance
from fmtda.protocol.runtime import keep_freed_memory, set_threads

STEPS = {
    "small-cnn": ((3, 32, 32), 128, 40),
    "resnet18": ((3, 96, 96), 32, 8),
    "lraspp": ((3, 96, 128), 8, 16),
}
"""Of each network the shape of an input, how many a batch has, and how many steps are measured."""

AS_IT_COMES, KEPT, BFLOAT16 = "as it comes", "kept", "kept, bfloat16"

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
        print(json.dumps(steps(*given.inside)))
        return
    measured: dict[str, dict[str, list[dict[str, float]]]] = {
        name: {variant: [] for variant in (AS_IT_COMES, KEPT, BFLOAT16)} for name in STEPS
    }
    for name, variants in measured.items():
        for _ in range(given.repeats):
            for variant, found in variants.items():
                found.append(_in_a_process(name, variant, given.threads))
    medians = {
        name: {variant: _medians(found) for variant, found in variants.items()} for name, variants in measured.items()
    }
    print(table(medians))
    if given.output:
        command = f"python -m benchmarks.training_step --threads {given.threads} --repeats {given.repeats}"
        report = {"command": command, "medians": medians, "measured": measured, **provenance()}
        given.output.write_text(json.dumps(report, indent=1) + "\n")


def steps(name: str, variant: str) -> dict[str, float]:
    """Measure the median time of a step, and per step the system's time and the pages that had to be brought in."""
    if variant != AS_IT_COMES and not keep_freed_memory():
        raise SystemExit("the C library here is not glibc: there is nothing to compare")
    shape, batch, count = STEPS[name]
    network = build(name, CLASSES, shape, 0, torch.bfloat16 if variant == BFLOAT16 else torch.float32).train()
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


def table(medians: dict[str, dict[str, dict[str, float]]]) -> str:
    """Write milliseconds a step and the peak of memory as Markdown."""
    variants = list(next(iter(medians.values())))
    lines = [f"| network | {' | '.join(variants)} |", "| --- " + "| ---: " * len(variants) + "|"]
    for name, found in medians.items():
        cells = (f"{found[variant]['step_ms']:.0f} ms, {found[variant]['peak_mib']:.0f} MiB" for variant in variants)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _in_a_process(name: str, variant: str, threads: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.training_step", "--threads", str(threads), "--inside", name, variant]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _medians(found: list[dict[str, float]]) -> dict[str, float]:
    return {figure: statistics.median(one[figure] for one in found) for figure in found[0]}


if __name__ == "__main__":
    main()
