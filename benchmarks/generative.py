"""Compares generative models of pictures, federated and alone, at equal gradient steps.

    python -m benchmarks.generative --output benchmarks/results/generative --runs RUNS
    python -m benchmarks.generative --output ... --runs RUNS --models ddpm --arms local,skewed -c rounds=40

Each arm of each model is a run of `fmtda generate` in a process of its own below `--runs`; one that is done is not run
again, one that was cut short goes on, so Ctrl-C is harmless and the table grows over several sittings. Equal gradient
steps means: an arm `local` makes rounds x training.steps steps of training.batch pictures, and so does every client of
the federation beside it.

What is written to `--output`: ``results.json``, ``table.md``, and a grid of samples of each arm.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.generative_measures import Judged, bits_per_dimension, opened, sampled, samplers, write_grid
from benchmarks.generative_runs import run_to_the_end, settings_words, shown, training_seconds
from fmtda.benchmarking.command_line import command_line
from fmtda.benchmarking.provenance import provenance
from fmtda.generative.registry import MODELS
from fmtda.protocol.settings import GenerativeSettings
from fmtda.server.run_directory import stored_run_config
from fmtda.strategies.composition import read_settings

DOMAINS = ("--targets", "blend,fonts,street,pen", "-c", "{model}.colour=rgb")


@dataclass(frozen=True)
class Arm:
    """An arm is one way to train, as options of ``fmtda generate``.

    Attributes
    ----------
    options
        ``{model}`` in them stands for the model's name.
    reference
        The arm that this one is compared with; None for a reference.
    """

    description: str
    options: tuple[str, ...]
    reference: str | None = None

    def words(self, model: str) -> list[str]:
        """Write the options for a model, whose own settings stand in its own table."""
        return [option.format(model=model) for option in self.options]


ARMS = {
    "local": Arm("one domain, handwritten, grey: pooled", ("--local",)),
    "iid": Arm("the same over 4 clients at random", ("--clients", "4"), "local"),
    "skewed": Arm(
        "the same over 4 clients, labels skewed (Dirichlet, alpha 0.5)",
        ("--clients", "4", "-c", "data.partition=dirichlet", "-c", "data.alpha=0.5"),
        "local",
    ),
    "domains-local": Arm("four domains, RGB: pooled", ("--local", *DOMAINS)),
    "domains": Arm("the same with one domain a client", ("--clients", "4", *DOMAINS), "domains-local"),
}


def main() -> None:
    arguments = _arguments()
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / "results.json"
    records = json.loads(file.read_text())["runs"] if file.exists() else {}
    judges: dict[tuple, Judged] = {}
    for name, model, arm, seed in _asked(arguments):
        run = arguments.runs / name
        words = [model, *ARMS[arm].words(model), "--seed", str(seed), *settings_words(arguments.config)]
        run_to_the_end(run, words, _resources(arguments, arm))
        settings = read_settings(stored_run_config(run))
        if records.get(name, {}).get("settings") == shown(settings):
            print(f"{name}: measured already", flush=True)
            continue
        assert isinstance(settings, GenerativeSettings)
        key = Judged.key(settings)
        judged = judges.get(key) or Judged(settings)
        judges[key] = judged
        records[name] = {
            "command": shlex.join(["fmtda", "generate", *words]),
            **measure(run, model, arm, judged, arguments),
        }
        results = {"command": _command(), **provenance(), "equal_steps": __doc__.split("\n\n")[2], "runs": records}
        file.write_text(json.dumps(results, indent=1) + "\n")
        (arguments.output / "table.md").write_text(table(records))
        print(table(records), flush=True)


def measure(run: Path, model: str, arm: str, judged: Judged, arguments: argparse.Namespace) -> dict[str, Any]:
    """Take all figures of a finished run."""
    began = time.perf_counter()
    summary = json.loads((run / "summary.json").read_text())
    results = opened(run)
    samples, seconds = sampled(results, arguments.samples)
    write_grid(samples, results, arguments.output / f"{run.name}.png")
    record = {
        "model": model,
        "arm": arm,
        "settings": shown(results.settings),
        **{key: summary[key] for key in ("gradient_steps", "parameters", "loss", "wall_seconds", "failures")},
        **{key: summary[key] for key in ("uplink_bytes_per_client_round", "client_seconds_per_round")},
        "training_seconds": training_seconds(run),
        "samples": len(samples),
        "sampling_seconds": seconds,
        **judged.of(samples),
        "real_against_real": judged.floor(),
    }
    if model == "ddpm":
        record["bits_per_dimension"] = bits_per_dimension(run, judged.held_out)
        if ARMS[arm].reference is None:
            record["samplers"] = samplers(run, judged, arguments.sampler_samples, arguments.ddim_steps)
    return {**record, "measuring_seconds": time.perf_counter() - began}


def table(records: dict[str, dict[str, Any]]) -> str:
    """Write the figures as Markdown, each federated arm beside its reference."""
    lines = [
        "| model | arm | seed | steps | Frechet distance | against local | confident, % | classes | least class, % "
        "| bits/dim | training, s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for record in records.values():
        reference = records.get(_name(record["model"], ARMS[record["arm"]].reference, record["settings"]["seed"]))
        ratio = "-" if reference is None else f"{record['frechet_distance'] / reference['frechet_distance']:.2f}"
        bits = record.get("bits_per_dimension", {}).get("total")
        shares = record["class_shares"]
        cells = [
            record["model"],
            f"{record['arm']}: {ARMS[record['arm']].description}",
            str(record["settings"]["seed"]),
            str(record["gradient_steps"]),
            f"{record['frechet_distance']:.3f}",
            ratio,
            f"{100 * record['confident_share']:.1f}",
            str(sum(share > 0 for share in shares)),
            f"{100 * min(shares):.1f}",
            "-" if bits is None else f"{bits:.3f}",
            f"{record['training_seconds']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _asked(arguments: argparse.Namespace) -> Iterator[tuple[str, str, str, int]]:
    for seed in range(arguments.seeds):
        for model in arguments.models:
            for arm in arguments.arms:
                yield _name(model, arm, seed), model, arm, seed


def _resources(arguments: argparse.Namespace, arm: str) -> list[str]:
    """What Ray reserves for a client; pooled training has none."""
    shared = arguments.client_gpus and "--local" not in ARMS[arm].options
    return ["--client-gpus", f"{arguments.client_gpus:g}"] if shared else []


def _name(model: str, arm: str | None, seed: int) -> str:
    return f"{model}-{arm}-seed-{seed}"


def _command() -> str:
    words = ["python", "-m", "benchmarks.generative", *sys.argv[1:]]
    places = {index + 1 for index, word in enumerate(words) if word in ("--output", "--runs")}
    return shlex.join("DIR" if index in places else word for index, word in enumerate(words))


def _arguments() -> argparse.Namespace:
    def names_of(allowed):
        def names(text: str) -> list[str]:
            given = list(allowed) if text == "all" else text.split(",")
            if unknown := [name for name in given if name not in allowed]:
                raise argparse.ArgumentTypeError(f"{unknown[0]}: allowed are all, {', '.join(allowed)}")
            return given

        return names

    parser = command_line(__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of results.json, table.md and the grids")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the run directories")
    parser.add_argument("--models", type=names_of(MODELS), default=list(MODELS))
    parser.add_argument("--arms", type=names_of(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, ... of each")
    parser.add_argument("--samples", type=int, default=2000, help="of a run, for distance, confidence and classes")
    parser.add_argument("--sampler-samples", type=int, default=500, help="of each sampler of DDPM")
    parser.add_argument("--ddim-steps", type=int, default=50, help="of the short sampler of DDPM")
    parser.add_argument("--client-gpus", type=float, default=0.0, help="GPU (a fraction will do) for a client")
    arguments = parser.parse_args()
    arguments.runs = arguments.runs.expanduser().absolute()
    return arguments


if __name__ == "__main__":
    main()
