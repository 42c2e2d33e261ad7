"""One configuration over several seeds, each through `fmtda simulate`: means, spreads, and a picture.

    python benchmarks/seeds.py --seeds 3 --output benchmarks/results/digits.json
    python benchmarks/seeds.py --seeds 1 --output benchmarks/results/digit_five.json -- \\
        --data digit-five --data-dir DIR --rounds 5

What follows ``--`` goes to `fmtda simulate`. The picture lies beside the JSON, as .svg.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from server.run_directory import versions

BARS = {"plain source-only": "#b8b8b8", "source-only": "#7f9fbf", "adapted": "#1f5f99"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True, help="JSON file of the result")
    parser.add_argument("options", nargs="*", help="options of `fmtda simulate`")
    arguments = parser.parse_args()
    runs = [run(seed, arguments.options) for seed in range(arguments.seeds)]
    shown = ["DIR" if i and arguments.options[i - 1] == "--data-dir" else o for i, o in enumerate(arguments.options)]
    result = {
        "command": " ".join(["fmtda simulate", *shown, f"--seed 0..{arguments.seeds - 1}"]),
        "cores": os.cpu_count(),
        "versions": versions(),
        "average_accuracy": _spread([r["average_accuracy"] for r in runs]),
        "average_plain_source_only": _spread([statistics.mean(r["plain_source_only"].values()) for r in runs]),
        "average_source_only": _spread([statistics.mean(r["source_only"].values()) for r in runs]),
        "process_seconds": _spread([r["process_seconds"] for r in runs]),
        "runs": runs,
    }
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    draw(result, arguments.output.with_suffix(".svg"))
    print(json.dumps({key: value for key, value in result.items() if key != "runs"}, indent=2))


def run(seed: int, options: list[str]) -> dict:
    """One simulation in a process of its own; its summary, and the seconds of the whole process."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = [sys.executable, "-m", "fmtda", "simulate", *options]
        subprocess.run([*command, "--seed", str(seed), "--output", f"{folder}/run"], check=True)
        seconds = time.perf_counter() - began
        summary = json.loads(Path(folder, "run", "summary.json").read_text())
    return {**summary, "process_seconds": seconds}


def draw(result: dict, path: Path) -> None:
    """Accuracy per target: means over the seeds as bars, each seed as a dot."""
    keys = {"plain source-only": "plain_source_only", "source-only": "source_only", "adapted": "accuracy"}
    domains = list(result["runs"][0]["accuracy"])
    figure, axes = pyplot.subplots(figsize=(7, 3.2))
    for offset, (label, colour) in enumerate(BARS.items()):
        values = [[r[keys[label]][domain] for r in result["runs"]] for domain in domains]
        places = [i + (offset - 1) * 0.27 for i in range(len(domains))]
        axes.bar(places, [statistics.mean(v) for v in values], 0.25, label=label, color=colour)
        for place, dots in zip(places, values, strict=True):
            axes.plot([place] * len(dots), dots, ".", color="black", markersize=3)
    axes.set_xticks(range(len(domains)), domains)
    axes.set_ylabel("accuracy on the target, %")
    axes.set_ylim(0, 100)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.17))
    figure.savefig(path, bbox_inches="tight")


def _spread(values: list[float]) -> dict[str, float]:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.mean(values), "standard_deviation": deviation}


if __name__ == "__main__":
    main()
