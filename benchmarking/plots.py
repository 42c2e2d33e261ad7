"""Draws a benchmark's pictures, as SVG: accuracy by method and domain, against uploaded bytes, and by round.

`results` is what `benchmarking.tables` describes. Colours are Okabe and Ito's, which colour-blind people tell apart.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from sklearn.isotonic import isotonic_regression

from fmtda.benchmarking.methods import COMPARED_IN_ABLATION
from fmtda.benchmarking.tables import (
    DAGGER,
    METRICS,
    BenchmarkResults,
    on_the_ablations_seeds,
    reached,
    shown_bytes,
    spread,
    with_plain,
)
from fmtda.strategies.registry import USUAL_STRATEGY

COLOURS = {
    "federated": "#56B4E9",
    "variant": "#0072B2",
    "reference": "#E69F00",
    "ablation": "#999999",
    "plain": "#D0D0D0",
}
MEANINGS = {
    "federated": "federated",
    "variant": f"{USUAL_STRATEGY['adaptation']} and its variants",
    "reference": f"centralised {DAGGER} breaks privacy",
    "ablation": "one extra alone or left out",
    "plain": "without any extra",
}
LINES = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#999999"]
UPLOADED = "uplink_bytes_per_client_round"
STYLES = ["-", "--", ":"]
REFERENCE_LINE = "#707070"

SMALL = 8
"""Points; the size of labels."""

LABEL_HEIGHT = 10.5
"""Points from one label's middle to the next one's, so that they don't touch."""

DECADES_OF_A_LABEL = 0.75
"""Methods whose bytes are nearer than this share a column of labels."""


def draw(results: BenchmarkResults, folder: Path) -> list[Path]:
    """Draw what the results allow, into a folder.

    Returns
    -------
    list of Path
        The files: accuracy.svg, ablation.svg, bytes.svg and rounds.svg, less those there is nothing to show in.
    """
    finished = [method for method in results["methods"] if reached(results, method["name"])]
    main = [method for method in finished if method["group"] != "ablation"]
    ablation = [method for method in finished if method["group"] == "ablation"]
    compared = [method for method in main if method["name"] in COMPARED_IN_ABLATION]
    pictures = {
        "accuracy": (accuracy_by_method, results, with_plain(results, main)),
        "ablation": (accuracy_by_method, on_the_ablations_seeds(results), [*compared, *ablation] if ablation else []),
        "bytes": (accuracy_by_bytes, results, main),
        "rounds": (accuracy_by_round, results, main),
    }
    written = []
    for name, (picture, shown, methods) in pictures.items():
        if not methods:
            continue
        figure = picture(shown, methods)
        written.append(folder / f"{name}.svg")
        save(figure, written[-1])
    return written


def accuracy_by_method(results: BenchmarkResults, methods: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw a panel a domain and one for the average; a bar a method, a dot a seed."""
    panels = [*results["domains"], "average"]
    height = 1.1 + 0.24 * len(methods)
    figure, row = pyplot.subplots(
        1, len(panels), figsize=(1.9 + 1.55 * len(panels), height), sharey=True, layout="constrained"
    )
    places = np.arange(len(methods))
    for axes, panel in zip(row, panels, strict=True):
        for place, method in zip(places, methods, strict=True):
            found = [_value(run, panel) for run in reached(results, method["name"])]
            values = [value for value in found if value is not None]
            if not values:
                continue
            axes.barh(place, statistics.mean(values), 0.72, color=COLOURS[_colour_group(method)])
            axes.plot(values, [place] * len(values), ".", color="black", markersize=3.5)
            axes.text(103, place, f"{statistics.mean(values):.1f}", va="center", fontsize=SMALL)
        axes.set_title(panel, fontsize=SMALL + 1, fontweight="bold" if panel == "average" else "normal")
        axes.set_xlim(0, 128)  # room for the numbers
        axes.set_xticks([0, 50, 100])
        axes.spines["bottom"].set_bounds(0, 100)
        axes.tick_params(labelsize=SMALL)
        axes.spines[["top", "right"]].set_visible(False)
    row[0].set_yticks(places, [_label(method) for method in methods])
    row[0].invert_yaxis()
    groups = dict.fromkeys(_colour_group(method) for method in methods)
    handles = [Patch(color=COLOURS[group], label=MEANINGS[group]) for group in groups]
    figure.legend(handles=handles, frameon=False, ncols=len(panels) - 1, loc="outside upper center", fontsize=SMALL)
    figure.supxlabel(f"{METRICS[results['metric']]} on the target; bars: mean, dots: seeds", fontsize=SMALL + 1)
    return figure


def accuracy_by_bytes(results: BenchmarkResults, methods: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw average accuracy against a client's upload in a round; what moves the data itself stands at the right."""
    sent: dict[str, float | None] = {}
    averages: dict[str, tuple[float, float | None]] = {}
    for method in methods:
        runs = reached(results, method["name"])
        uploaded, average = (spread(run[key] for run in runs) for key in (UPLOADED, "average_accuracy"))
        if average is not None:
            averages[method["name"]] = average
            in_a_round = uploaded[0] if uploaded and not method["breaks_privacy"] else 0.0
            sent[method["name"]] = in_a_round if in_a_round > 0 else None
    methods = [method for method in methods if method["name"] in averages]
    known = [x for x in sent.values() if x is not None] or [1e3]
    at_data_moved = 10.0 ** (math.ceil(math.log10(max(known))) + 1)
    xs = {name: at_data_moved if x is None else x for name, x in sent.items()}

    figure, axes = pyplot.subplots(figsize=(8.5, 4.6), layout="constrained")
    axes.set_xscale("log")
    axes.set_xlim(10 ** math.floor(math.log10(min(xs.values()))), 25 * max(xs.values()))
    axes.set_ylabel(f"average {METRICS[results['metric']]}")
    axes.set_xlabel("uploaded by a client in a round")
    for method in methods:
        height, deviation = averages[method["name"]]
        colour = COLOURS[_colour_group(method)]
        axes.errorbar(xs[method["name"]], height, deviation or 0, fmt="o", color=colour, markersize=6, capsize=2)
    decades = range(math.floor(math.log10(min(known))), math.ceil(math.log10(max(known))) + 1)
    ticks = {10.0**decade: shown_bytes(10.0**decade).replace(".0 ", " ").replace(".00 ", " ") for decade in decades}
    if None in sent.values():
        ticks[at_data_moved] = "data moved"
        axes.axvspan(at_data_moved / 2.5, axes.get_xlim()[1], color="#f3f3f3", zorder=0)
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.12)
    for column in _columns(xs):
        heights = {name: averages[name][0] for name in column}
        labels = {m["name"]: (_label(m), "black") for m in methods if m["name"] in column}
        _label_beside(axes, {name: xs[name] for name in column}, heights, labels, 1.9 * max(xs[n] for n in column))
    return figure


def accuracy_by_round(results: BenchmarkResults, methods: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw average accuracy after each round, a line a federated method; references as level lines."""
    figure, axes = pyplot.subplots(figsize=(8.5, 4.8), layout="constrained")
    courses = {m["name"]: _course(reached(results, m["name"])) for m in methods if not m["breaks_privacy"]}
    last = max((course[-1][0] for course in courses.values() if course), default=1)
    ends, labels = {}, {}
    for i, method in enumerate(method for method in methods if courses.get(method["name"])):
        rounds, averages = zip(*courses[method["name"]], strict=True)
        style, colour = STYLES[i // len(LINES) % len(STYLES)], LINES[i % len(LINES)]
        width = 2.2 if is_usual(method) else 1.3
        axes.plot(rounds, averages, style, color=colour, linewidth=width, marker="o", markersize=3)
        ends[method["name"]] = (rounds[-1], averages[-1])
        labels[method["name"]] = (_label(method), colour)
    for method in methods:
        if method["breaks_privacy"]:
            average = statistics.mean(run["average_accuracy"] for run in reached(results, method["name"]))
            axes.plot([0, last], [average, average], color=REFERENCE_LINE, linestyle=(0, (1, 3)), linewidth=1)
            ends[method["name"]] = (last, average)
            labels[method["name"]] = (_label(method), REFERENCE_LINE)
    axes.set_xlim(-0.02 * last, 1.33 * last)
    ticks = range(0, last + 1, max(1, math.ceil(last / 10)))
    axes.set_xticks(ticks, ["pre-trained", *map(str, ticks[1:])])
    axes.spines["bottom"].set_bounds(0, last)
    axes.set_xlabel("round; personalising counts as one more" if _personalised(results) else "round")
    axes.set_ylabel(f"average {METRICS[results['metric']]}")
    axes.spines[["top", "right"]].set_visible(False)
    starts, heights = ({name: end[i] for name, end in ends.items()} for i in (0, 1))
    _label_beside(axes, starts, heights, labels, 1.05 * last)
    return figure


def without_overlap(wanted: Sequence[float], gap: float) -> list[float]:
    """Find the places nearest to the wanted ones (least squares) that keep their order and are `gap` apart at least."""
    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(order))
    places = np.empty(len(order))
    places[order] = isotonic_regression(np.asarray(wanted, dtype=float)[order] - steps) + steps
    return places.tolist()


def _label_beside(
    axes: Axes,
    starts: Mapping[str, float],
    heights: Mapping[str, float],
    labels: Mapping[str, tuple[str, str]],
    at: float,
) -> None:
    """Write labels in a column at x = `at`, each with a thin line from its point."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # only then are the axes as high as they are going to be
    low, high = axes.get_ylim()
    points_high = axes.get_window_extent().height * 72 / figure.dpi
    places = without_overlap(list(heights.values()), LABEL_HEIGHT * (high - low) / points_high)
    for (name, height), place in zip(heights.items(), places, strict=True):
        text, colour = labels[name]
        axes.annotate(
            text,
            xy=(starts[name], height),
            xytext=(at, place),
            va="center",
            fontsize=SMALL,
            color=colour,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "#b0b0b0", "linewidth": 0.6, "shrinkA": 1, "shrinkB": 4},
        )
    axes.set_ylim(low, high)


def _columns(xs: Mapping[str, float]) -> list[list[str]]:
    """Names whose x are too near for a column of labels each, together."""
    columns: list[list[str]] = []
    for name in sorted(xs, key=xs.__getitem__):
        if columns and math.log10(xs[name] / xs[columns[-1][0]]) < DECADES_OF_A_LABEL:
            columns[-1].append(name)
        else:
            columns.append([name])
    return columns


def _course(runs: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """(round, mean over seeds of the average over domains); a personalised model counts as one round more.

    Of seeds that were evaluated in different rounds, those evaluated most often count: a mean over other seeds in each
    round would draw their difference as a step.
    """
    most = max((len(run["accuracy_by_round"]) for run in runs), default=0)
    runs = [run for run in runs if len(run["accuracy_by_round"]) == most]
    by_round: dict[int, list[float]] = {}
    for run in runs:
        for line in run["accuracy_by_round"]:
            if line["accuracy"]:
                after = line["round"] + (line["phase"] == "personalise")
                by_round.setdefault(after, []).append(statistics.mean(line["accuracy"].values()))
    return [(after, statistics.mean(values)) for after, values in sorted(by_round.items())]


def _personalised(results: BenchmarkResults) -> bool:
    runs = (cell["result"] for cell in results["cells"] if cell["result"])
    return any(line["phase"] == "personalise" for run in runs for line in run["accuracy_by_round"])


def _value(run: Mapping[str, Any], panel: str) -> float | None:
    return run["average_accuracy"] if panel == "average" else run["accuracy"].get(panel)


def is_usual(method: Mapping[str, Any]) -> bool:
    """Tell whether a method is a form of the algorithm that a user gets who names none."""
    return method["name"].startswith(USUAL_STRATEGY["adaptation"])


def _colour_group(method: Mapping[str, Any]) -> str:
    return "variant" if is_usual(method) else method["group"]


def _label(method: Mapping[str, Any]) -> str:
    return method["name"] + (f" {DAGGER}" if method["breaks_privacy"] else "")


def save(figure: Figure, path: Path) -> None:
    """Write a figure and close it; equal figures give equal files, without a date and without random ids."""
    with matplotlib.rc_context({"svg.hashsalt": "fmtda"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
