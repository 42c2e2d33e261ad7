"""Compares models of molecules, federated over four clients and alone, at equal gradient steps.

    python -m benchmarks.federated_molecules --data qm9 --data-dir DIR --output OUT --runs RUNS
    python -m benchmarks.federated_molecules ... --models mpgvae --arms local,scaffold -c rounds=80

Each arm of each model is a run of `fmtda generate` in a process of its own below `--runs`; one that is done is not run
again, one that was cut short goes on, so Ctrl-C is harmless and the table grows over several sittings. An arm `local`
makes rounds x training.steps steps of training.batch molecules, and so does every client of the federation beside it.
The figures are those of the runs' summaries: 10,000 samples each, no correction.

What is written to `--output`: ``results.json`` and ``table.md``.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from benchmarks.generative_runs import run_to_the_end, settings_words, shown, training_seconds
from fmtda.benchmarking.command_line import command_line
from fmtda.benchmarking.provenance import provenance
from fmtda.server.run_directory import stored_run_config
from fmtda.strategies.composition import read_settings

REFERENCE = "local"
ARMS: dict[str, tuple[str, ...]] = {
    REFERENCE: ("--local",),
    "iid": ("--clients", "4"),
    "scaffold": ("--clients", "4", "-c", "data.partition=scaffold"),
}
MODELS: dict[str, dict[str, str]] = {
    "graph-nvp": {"rounds": "12", "training.batch": "512", "graph-nvp.precision": "bfloat16"},
    "mpgvae": {"rounds": "24"},
}
"""What differs from the model's defaults."""

COMMON = {"data.target-limit": "0", "samples.quality": "10000", "samples.every": "0"}


def main() -> None:
    arguments = parsed()
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / "results.json"
    records = json.loads(file.read_text())["runs"] if file.exists() else {}
    for seed in range(arguments.seeds):
        for model in arguments.models.split(","):
            for arm in arguments.arms.split(","):
                name = f"{model}-{arm}-seed-{seed}"
                options = settings_words({**COMMON, **MODELS[model], **arguments.config})
                words = [model, *ARMS[arm], "--data", arguments.data, "--seed", str(seed), *options]
                place = ["--data-dir", str(arguments.data_dir)] if arguments.data_dir else []
                run_to_the_end(arguments.runs / name, [*words, *place])
                told = {"model": model, "arm": arm, "command": shlex.join(["fmtda", "generate", *words])}
                records[name] = {**told, **figures(arguments.runs / name)}
                result = {"command": arguments.given, **provenance(), "runs": records}
                file.write_text(json.dumps(result, indent=1) + "\n")
                (arguments.output / "table.md").write_text(table(records))
    print(table(records), flush=True)


def figures(run: Path) -> dict[str, Any]:
    """Read the figures of a finished run."""
    summary = json.loads((run / "summary.json").read_text())
    kept = ("gradient_steps", "parameters", "loss", "quality", "uplink_bytes_per_client_round", "wall_seconds")
    settings = shown(read_settings(stored_run_config(run)))
    return {
        "settings": settings,
        **{key: summary[key] for key in (*kept, "client_seconds_per_round", "failures")},
        "training_seconds": training_seconds(run),
    }


def table(records: dict[str, dict[str, Any]]) -> str:
    """Write the figures as Markdown, each federated arm beside its reference."""
    lines = [
        "| run | steps | valid, % | unique, % | novel, % | all, % | against local | held-out loss | training, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, record in records.items():
        quality = record["quality"]
        reference = records.get(f"{record['model']}-{REFERENCE}-seed-{record['settings']['seed']}")
        ratio = "-"
        if record["arm"] != REFERENCE and reference and reference["quality"]["product"]:
            ratio = f"{quality['product'] / reference['quality']['product']:.2f}"
        shares = [f"{quality[key]:.1f}" for key in ("valid", "unique", "novel", "product")]
        loss = sum(record["loss"].values()) / len(record["loss"])
        seconds = f"{record['training_seconds']:.0f}"
        lines.append(f"| {' | '.join([name, str(record['gradient_steps']), *shares, ratio, f'{loss:.3f}', seconds])} |")
    return "\n".join(lines) + "\n"


def parsed() -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--data", choices=("fragments", "qm9", "zinc250k"), default="fragments")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, ... of each")
    parser.add_argument("--output", type=Path, required=True, help="folder of results.json and table.md")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the run directories")
    arguments = parser.parse_args()
    for given, allowed in ((arguments.models, MODELS), (arguments.arms, ARMS)):
        if unknown := [name for name in given.split(",") if name not in allowed]:
            parser.error(f"{unknown[0]}: allowed are {', '.join(allowed)}")
    arguments.runs = arguments.runs.expanduser().absolute()
    words = ["python", "-m", "benchmarks.federated_molecules", *sys.argv[1:]]
    places = {index + 1 for index, word in enumerate(words) if word in ("--output", "--runs", "--data-dir")}
    arguments.given = shlex.join("DIR" if index in places else word for index, word in enumerate(words))
    return arguments


if __name__ == "__main__":
    main()
