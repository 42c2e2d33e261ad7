"""Writes a benchmark's table as Markdown: means and sample standard deviations over the seeds.

A benchmark's results (results.json) are a dict: ``metric``, ``domains``, ``methods`` (name, description, group,
breaks_privacy) in the order of the rows, and ``cells``, each a cell.json (`fmtda.benchmarking.cells`).
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fmtda.benchmarking.methods import COMPARED_IN_ABLATION
from fmtda.server.metrics import METRIC_NAMES
from fmtda.strategies.source_only import SourceOnly

METRICS = {metric: f"{name} in percent" for metric, name in METRIC_NAMES.items()}

COSTS = (
    "uplink_bytes_per_client_round",
    "downlink_bytes_per_client_round",
    "client_seconds_per_round",
    "server_seconds_per_round",
)

MISSING = "-"
DAGGER = "†"
PLAIN: Mapping[str, Any] = {"name": "plain source-only", "group": "plain", "breaks_privacy": False}
"""A row that is no method: the same network without any extra, which runs of the default preset measure at first."""

PLAIN_IS_MEASURED_BY = SourceOnly.name

BenchmarkResults = Mapping[str, Any]
"""A benchmark, as results.json holds it."""


def reached(results: BenchmarkResults, method: str) -> list[dict[str, Any]]:
    """List what a method's finished cells reached, by seed."""
    if method == PLAIN["name"]:
        return [_plain(run) for run in reached(results, PLAIN_IS_MEASURED_BY) if run["plain_source_only"]]
    cells = [cell for cell in results["cells"] if cell["method"] == method and cell["result"]]
    return [cell["result"] for cell in sorted(cells, key=lambda cell: cell["seed"])]


def with_plain(results: BenchmarkResults, methods: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Put `PLAIN` before the methods, where it was measured."""
    return [PLAIN, *methods] if reached(results, PLAIN["name"]) else list(methods)


def on_the_ablations_seeds(results: BenchmarkResults) -> BenchmarkResults:
    """Leave out the seeds that no method of the ablation has: what it is compared with has often more."""
    ablation = {method["name"] for method in results["methods"] if method["group"] == "ablation"}
    seeds = {cell["seed"] for cell in results["cells"] if cell["method"] in ablation and cell["result"]}
    return {**results, "cells": [cell for cell in results["cells"] if cell["seed"] in seeds]}


def spread(values: Iterable[float | None]) -> tuple[float, float | None] | None:
    """Take mean and sample standard deviation (over n - 1); no deviation of one value, None of no value."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return statistics.mean(known), statistics.stdev(known) if len(known) > 1 else None


def markdown(results: BenchmarkResults) -> str:
    """Write the whole of table.md."""
    main = [method for method in results["methods"] if method["group"] != "ablation"]
    ablation = [method for method in results["methods"] if method["group"] == "ablation"]
    parts = [f"# {results['data']}: {METRICS[results['metric']]} on the targets", _about(results)]
    if main:
        parts.append(_table(results, [_row(results, method) for method in with_plain(results, main)]))
    if ablation:
        compared = [method for method in main if method["name"] in COMPARED_IN_ABLATION]
        equal = on_the_ablations_seeds(results)
        parts += ["## Ablation", _table(equal, [_row(equal, method) for method in [*compared, *ablation]])]
    return "\n\n".join([*parts, *_notes(results)]) + "\n"


def _about(results: BenchmarkResults) -> str:
    machine = results["machine"]
    return (
        f"`{results['command']}`; {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']:.0f} GiB. "
        "Mean ± sample standard deviation over the seeds, the mean alone of one seed; bytes and seconds per client and "
        "round, the server's seconds per round."
    )


def _table(results: BenchmarkResults, rows: Sequence[Sequence[str]]) -> str:
    head = ["method", "seeds", *results["domains"], "average", "up", "down", "client s", "server s"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(results: BenchmarkResults, method: Mapping[str, Any]) -> list[str]:
    runs = reached(results, method["name"])
    name = method["name"] + (f" {DAGGER}" if method["breaks_privacy"] else "")
    return [
        name,
        str(len(runs)) if runs else MISSING,
        *(_percent(run["accuracy"].get(domain) for run in runs) for domain in results["domains"]),
        _percent(run["average_accuracy"] for run in runs),
        *(_bytes(run[cost] for run in runs) for cost in COSTS[:2]),
        *(_seconds(run[cost] for run in runs) for cost in COSTS[2:]),
    ]


def _plain(run: Mapping[str, Any]) -> dict[str, Any]:
    accuracy = run["plain_source_only"]
    return {"accuracy": accuracy, "average_accuracy": statistics.mean(accuracy.values()), **dict.fromkeys(COSTS)}


def _notes(results: BenchmarkResults) -> list[str]:
    notes = []
    if any(method["breaks_privacy"] for method in results["methods"]):
        notes.append(
            f"{DAGGER} breaks privacy: the clients' pictures are moved to one place. There, server seconds are per "
            "tenth of the training."
        )
    unfinished = [cell for cell in results["cells"] if not cell["result"]]
    if unfinished:
        named = (f"{cell['method']}, seed {cell['seed']} ({cell['failure'] or 'cut short'})" for cell in unfinished)
        notes.append(f"Not finished: {'; '.join(named)}.")
    meanings = (f"- `{method['name']}`: {method['description']}" for method in results["methods"])
    return [*notes, "\n".join(meanings)]


def _percent(values: Iterable[float | None]) -> str:
    known = spread(values)
    if known is None:
        return MISSING
    average, deviation = known
    return f"{average:.1f}" if deviation is None else f"{average:.1f} ± {deviation:.1f}"


def _seconds(values: Iterable[float | None]) -> str:
    known = spread(values)
    return MISSING if known is None else f"{known[0]:.2f}"


def _bytes(values: Iterable[float | None]) -> str:
    known = spread(values)
    return MISSING if known is None else shown_bytes(known[0])


def shown_bytes(count: float) -> str:
    """Write bytes for people: ``612 B``, ``17.5 kB``, ``2.88 MB``."""
    if count < 1e3:
        return f"{count:.0f} B"
    return f"{count / 1e3:.1f} kB" if count < 1e6 else f"{count / 1e6:.2f} MB"
