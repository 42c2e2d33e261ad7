"""Measures what noise and a floor cost in accuracy, and what attacks on the uploads still find out.

    python -m benchmarks.privacy --output benchmarks/results/privacy

Embedded digits, default preset, one client a domain, the whole run driver with real messages in one process. A client
has a random half of its domain's training examples; the other half, of the same kind, is what an attack must not take
for its own. `benchmarks.privacy_attacks` says what is tried on the uploads of all rounds.

A cell is one run and the attacks on it: `off`, and four strengths of noise; each once without and, under a name with
``-floor``, once with a floor on the examples of a component. Cells that are done are not run again; ``--only`` takes
some of them, so that several processes can share a folder. The folder gets ``results.json``, ``table.md`` and
``privacy.svg`` after every cell.
"""

import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure

from benchmarks.privacy_attacks import Observer, membership, reconstruction
from fmtda.adaptation.heads import decisive
from fmtda.benchmarking.cells import write_whole
from fmtda.benchmarking.command_line import command_line, refusals
from fmtda.benchmarking.plots import LINES, REFERENCE_LINE, SMALL, save
from fmtda.benchmarking.provenance import provenance
from fmtda.benchmarking.settings import adaptation_settings
from fmtda.domains.client import Client
from fmtda.domains.partition import limited_split, split_labels
from fmtda.domains.registry import family, spec_of
from fmtda.protocol.client_names import domain_of
from fmtda.protocol.seeds import generator_for
from fmtda.protocol.settings import AdaptationSettings
from fmtda.protocol.tables import Scalar
from fmtda.server.app import run
from fmtda.server.metrics import mean
from fmtda.server.progress import Lines
from fmtda.simulation.in_process import InProcessGrid

NOISE: dict[str, tuple[float, float]] = {
    "off": (0.0, 0.0),
    "faint": (0.5, 2.0),
    "light": (1.0, 4.0),
    "medium": (2.0, 8.0),
    "strong": (4.0, 16.0),
}
"""`privacy.noise` and `privacy.mixture-noise` by strength."""

FLOOR = 20
"""Of the cells with one; in the others, components with fewer examples are counted."""

WITH_FLOOR = "-floor"

CELLS = [f"{strength}{floor}" for strength in NOISE for floor in ("", WITH_FLOOR)]

ATTACKS = ("loss", "entropy", "gradient", "mixture", "likelihood ratio")

NOT_FOR_GIT = "# Figures are worth keeping; what made them is large.\n/bases/\n"


def measured(cell: str, config: dict[str, Scalar], shadows: int) -> dict[str, Any]:
    """Run a cell and attack it."""
    began = time.monotonic()
    strength = cell.removesuffix(WITH_FLOOR)
    noise, mixture_noise = NOISE[strength]
    floor = FLOOR if cell.endswith(WITH_FLOOR) else 0
    keys = {"privacy.noise": noise, "privacy.mixture-noise": mixture_noise, "privacy.mixture-floor": floor}
    observer = Observer()
    with tempfile.TemporaryDirectory() as folder:
        settings = adaptation_settings({**config, **keys, "output": f"{folder}/run"})
        directory = run(InProcessGrid.simulated(settings.clients, tamper=observer), settings, Lines())
        lines = directory.metrics()
        summary = json.loads((directory.path / "summary.json").read_text())
    attacks, distances = {}, {}
    for name, rounds in observer.rounds.items():
        client, candidates, members = _attacked(name, settings)
        generator = generator_for(settings.seed, name, "shadows")
        attacks[name] = membership(rounds, candidates, members, shadows, generator)
        distances[name] = reconstruction(rounds[-1], client, FLOOR)
    return {
        "settings": keys,
        "epsilon": max(summary["privacy"]["epsilon"].values()) if settings.private else None,
        "delta": settings.privacy.delta,
        "accuracy": {domain: decisive(heads, "mean") for domain, heads in lines[-1]["accuracy"].items()},
        "by_head": lines[-1]["accuracy"],
        "source_only": summary["source_only"],
        "membership": attacks,
        "reconstruction": distances,
        "members": int(members.sum()),
        "messages": observer.messages,
        "failures": sum(len(line["failures"]) for line in lines),
        "seconds": time.monotonic() - began,
    }


def _attacked(name: str, settings: AdaptationSettings) -> tuple[Client, Client, torch.Tensor]:
    """A client, the same with all candidates as its training examples, and which of them are its own.

    There are as many other candidates as own ones, or all that its domain has.
    """
    domain = domain_of(name)
    whole = family(settings.data.name).load(domain, "train", spec_of(settings))
    data = settings.data
    how = (data.partition, data.alpha, settings.seed, data.min_examples)
    (own,) = limited_split(split_labels(whole), data.target_limit, 1, *how, domain)
    others = np.setdiff1d(np.arange(len(whole)), own)
    others = np.sort(np.random.default_rng(settings.seed).permutation(others)[: len(own)])
    chosen = np.concatenate([own, others])
    unlabelled = whole.without_labels()
    nowhere = Path("nowhere")  # an attack writes no client's files
    client = Client(name, settings, settings.rounds, nowhere, unlabelled.select(own), whole.select([]), simulated=True)
    members = torch.arange(len(chosen)) < len(own)
    return client, dataclasses.replace(client, train=unlabelled.select(chosen)), members


def table(cells: dict[str, dict[str, Any]]) -> str:
    """Write what was measured as Markdown: a row a cell."""
    if not cells:
        return "no cell is done yet\n"
    domains = list(next(iter(cells.values()))["accuracy"])
    lines = ["Accuracy in percent by domain, beside epsilon of the client that gave away most.", ""]
    lines.append(f"| noise | floor | epsilon | {' | '.join(domains)} | average |")
    lines.append("|---|---:|---:|" + "---:|" * (len(domains) + 1))
    for cell, result in cells.items():
        figures = [*(result["accuracy"][domain] for domain in domains), mean(result["accuracy"].values())]
        lines.append(f"{_head(cell, result)} {' | '.join(f'{figure:.1f}' for figure in figures)} |")
    lines += ["", "Membership inference: AUC / share of members found at 1 % false positives, means over clients.", ""]
    lines.append(f"| noise | floor | epsilon | {' | '.join(ATTACKS)} |")
    lines.append("|---|---:|---:|" + "---:|" * len(ATTACKS))
    for cell, result in cells.items():
        shown = []
        for attack in ATTACKS:
            found = [of_client[attack] for of_client in result["membership"].values() if attack in of_client]
            auc, tpr = (statistics.fmean(each[key] for each in found) if found else 0.0 for key in ("auc", "tpr"))
            shown.append(f"{auc:.3f} / {100 * tpr:.1f} %" if found else "-")
        lines.append(f"{_head(cell, result)} {' | '.join(shown)} |")
    lines += [
        "",
        "Reconstruction: components of all clients together, and distances of their means to the nearest training "
        "example in units of the distance that training examples have from each other.",
        "",
        f"| noise | floor | epsilon | components | below {FLOOR} examples | nearest | median | W_S's median |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for cell, result in cells.items():
        found = list(result["reconstruction"].values())
        counts = [sum(each[key] for each in found) for key in ("components", "below_floor")]
        nearest = min(each["nearest"] for each in found)
        medians = [mean(each[key] for each in found) for key in ("median", "source_median")]
        figures = [*map(str, counts), *(f"{each:.2f}" for each in (nearest, *medians))]
        lines.append(f"{_head(cell, result)} {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


def _head(cell: str, result: dict[str, Any]) -> str:
    epsilon = "none" if result["epsilon"] is None else f"{result['epsilon']:.1f}"
    floor = next(value for key, value in result["settings"].items() if key.endswith("mixture-floor"))
    return f"| {cell.removesuffix(WITH_FLOOR)} | {floor or '-'} | {epsilon} |"


def picture(cells: dict[str, dict[str, Any]]) -> Figure:
    """Draw average accuracy and the AUC of each attack against epsilon; what has no noise stands at the right."""
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(7.4, 6.0), sharex=True, layout="constrained")
    spent = [result["epsilon"] for result in cells.values() if result["epsilon"] is not None]
    without = 4 * max(spent, default=1.0)

    def course(suffix: str, value) -> tuple[list[float], list[float]]:
        chosen = [result for cell, result in cells.items() if cell.endswith(WITH_FLOOR) == bool(suffix)]
        points = sorted((result["epsilon"] or without, value(result)) for result in chosen)
        return [x for x, _ in points], [y for _, y in points]

    for suffix, words, style in (("", "no floor", "o-"), (WITH_FLOOR, f"floor of {FLOOR}", "s--")):
        above.plot(*course(suffix, lambda r: mean(r["accuracy"].values())), style, color=LINES[0], label=words)
    for attack, colour in zip(ATTACKS, LINES[1:], strict=False):
        done = [r for r in cells.values() if all(attack in found for found in r["membership"].values())]
        if len(done) == len(cells):
            values = course("", lambda r, a=attack: mean(found[a]["auc"] for found in r["membership"].values()))
            below.plot(*values, "o-", color=colour, label=attack)
    below.axhline(0.5, color=REFERENCE_LINE, linestyle=(0, (1, 3)))
    above.set_ylabel("average accuracy in percent")
    below.set_ylabel("AUC of membership inference")
    deltas = ", ".join(sorted({f"{result['delta']:g}" for result in cells.values()}))
    below.set_xlabel(f"epsilon of one example, at delta {deltas}")
    below.set_xscale("log")
    ticks = sorted({round(each, 1) for each in spent})
    below.set_xticks([*ticks, without], [*(f"{tick:g}" for tick in ticks), "no noise"])
    below.minorticks_off()
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=SMALL, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder; one that is there is gone on with")
    parser.add_argument("--only", default="", metavar="CELLS", help=f"comma list of {', '.join(CELLS)}")
    parser.add_argument("--members", type=int, default=500, help="training examples of a client")
    parser.add_argument(
        "--shadows", type=int, default=16, help="shadow clients of the likelihood ratio; 0: leave it out"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--base-dir", type=Path, help="folder of pre-trained networks; default: OUTPUT/bases")
    given = parser.parse_args()
    output = given.output.absolute()
    config: dict[str, Scalar] = {"rounds": given.rounds, "seed": given.seed, "data.target-limit": given.members}
    config["evaluate-every"] = given.rounds  # evaluating takes most of the time
    config |= given.config
    base = str((given.base_dir or output / "bases").absolute())
    wanted = [cell for cell in given.only.split(",") if cell] or CELLS
    if unknown := sorted(set(wanted) - set(CELLS)):
        parser.error(f"--only {given.only}: no cell {', '.join(unknown)}; allowed are {', '.join(CELLS)}")
    (output / "cells").mkdir(parents=True, exist_ok=True)
    write_whole(output / ".gitignore", NOT_FOR_GIT)
    for cell in wanted:
        file = output / "cells" / f"{cell}.json"
        if not file.exists():
            print(f"cell {cell}", flush=True)
            with refusals():
                result = measured(cell, {**config, "pretraining.base-dir": base}, given.shadows)
            write_whole(file, json.dumps({**result, **provenance()}, indent=1) + "\n")
        cells = {
            each: json.loads((output / "cells" / f"{each}.json").read_text())
            for each in CELLS
            if (output / "cells" / f"{each}.json").exists()
        }
        results = {
            "command": "python -m benchmarks.privacy",
            "config": config,
            "shadows": given.shadows,
            "cells": cells,
        }
        write_whole(output / "results.json", json.dumps(results, indent=1) + "\n")
        write_whole(output / "table.md", table(cells))
        save(picture(cells), output / "privacy.svg")
    print((output / "table.md").read_text())


if __name__ == "__main__":
    main()
