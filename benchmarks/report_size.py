"""Measures how large the report of a run with many clients is, and how long it takes to make.

    python -m benchmarks.report_size --clients 400 --rounds 2 --output benchmarks/results/report_size.json

The run has few steps: bytes and seconds of its report depend on its clients, domains, rounds and classes alone. Both
are commands as a user gives them, in processes of their own, start of Python included.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fmtda.benchmarking.provenance import provenance

FEW_STEPS = {
    "pretraining.steps": 20,
    "pretraining.plain-steps": 5,
    "dualadapt.server-steps": 1,
    "dualadapt.client-steps": 2,
    "dualadapt.components": 2,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--run", type=Path, help="take this finished run directory")
    parser.add_argument("--output", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = arguments.run or Path(folder) / "run"
        options = ["--preset", "paper", "--clients", str(arguments.clients), "--rounds", str(arguments.rounds)]
        options += [word for key, value in FEW_STEPS.items() for word in ("-c", f"{key}={value}")]
        if arguments.run is None:
            _fmtda("simulate", *options, "--output", run)
        wall, processor = _fmtda("report", run)
        summary = json.loads((run / "summary.json").read_text())
        result = {
            "command": f"python -m benchmarks.report_size --clients {summary['clients']} --rounds {summary['rounds']}",
            "run": " ".join(["fmtda simulate", *options]),
            **provenance(),
            "clients": summary["clients"],
            "rounds": summary["rounds"],
            "report_bytes": (run / "report.html").stat().st_size,
            "wall_seconds": wall,
            "processor_seconds": processor,
        }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


def _fmtda(*words: object) -> tuple[float, float]:
    """Run a command of fmtda; seconds on the wall and of the processor."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "fmtda", *map(str, words)], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
