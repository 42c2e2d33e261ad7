"""Reports a benchmark: its table, accuracy by method and domain, against bytes, by round, and the ablation."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fmtda.benchmarking.methods import COMPARED_IN_ABLATION
from fmtda.benchmarking.plots import is_usual
from fmtda.benchmarking.tables import (
    COSTS,
    DAGGER,
    METRICS,
    BenchmarkResults,
    on_the_ablations_seeds,
    reached,
    spread,
    with_plain,
)
from fmtda.face.report.blocks import (
    COLOURS,
    GREY,
    Figure,
    Figures,
    ReportTable,
    Section,
    Text,
    percent,
    plural,
    shown_bytes,
    shown_seconds,
)
from fmtda.face.run_files import read_benchmark
from fmtda.protocol.settings import SettingsError

FILE = "results.json"
GROUPS = {"federated": COLOURS[4], "variant": COLOURS[0], "reference": COLOURS[1], "ablation": GREY, "plain": GREY}

ShownMethod = Mapping[str, Any]
"""A method as results.json describes it."""


def read_results(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Read what a benchmark's folder holds, and say what of it can't be used.

    Raises
    ------
    SettingsError
        If it is of another program, or no cell is finished yet.
    """
    left_out: list[str] = []
    results = read_benchmark(path, FILE, left_out)
    if results is None or not results["methods"]:
        why = f" ({left_out[0]})" if left_out else ""
        raise SettingsError(
            f"{path}: {FILE} there is not of fmtda benchmark{why}; name a folder that it wrote, or runs"
        )
    if not any(reached(results, method["name"]) for method in results["methods"]):
        raise SettingsError(f"{path}: no cell of this benchmark is finished yet")
    return results, left_out


def title(results: BenchmarkResults) -> str:
    """Tell what was compared."""
    return f"Methods on {results['data']}"


def sentence(results: BenchmarkResults) -> str:
    """Tell how many methods were compared, and which is best."""
    finished = [method for method in results["methods"] if reached(results, method["name"])]
    fair = [method for method in finished if not method["breaks_privacy"] and method["group"] != "ablation"]
    best = max(fair or finished, key=lambda method: _average(results, method) or 0)
    runs = reached(results, best["name"])
    among = "of the methods that keep the data on the clients " if len(fair) < len(finished) and fair else ""
    known = spread(run["average_accuracy"] for run in runs)
    return (
        f"{plural(len(finished), 'method')} on {results['data']}, {plural(len(results['domains']), 'target')}, "
        f"{plural(max(len(reached(results, m['name'])) for m in finished), 'seed')}: {among}{best['name']} is best, "
        f"with {_spread(known)} % on average."
    )


def sections(results: BenchmarkResults) -> list[Section]:
    """Show everything in results.json that can be shown."""
    finished = [method for method in results["methods"] if reached(results, method["name"])]
    main = [method for method in finished if method["group"] != "ablation"]
    ablation = [method for method in finished if method["group"] == "ablation"]
    compared = [method for method in main if method["name"] in COMPARED_IN_ABLATION]
    made = []
    if main:
        rows = with_plain(results, main)
        about = "Mean and sample standard deviation over the seeds; the mean alone of one seed."
        if any(method["breaks_privacy"] for method in main):
            about += f" {DAGGER} breaks privacy: the clients' pictures are moved to one place."
        made.append(Section("Methods", about, [_table(results, rows), _bars(results, rows)]))
        made.append(Section("Accuracy against bytes", "Uploaded by a client in a round.", [_by_bytes(results, main)]))
        made.append(Section("Rounds", "Average over the targets and the seeds.", [_by_round(results, main)]))
    if ablation:
        rows, equal = [*compared, *ablation], on_the_ablations_seeds(results)
        about = "One extra alone on the published algorithm, and one left out of the default preset; on equal seeds."
        made.append(Section("Ablation", about, [_table(equal, rows), _bars(equal, rows)]))
    made.append(_provenance(results))
    return made


def _table(results: BenchmarkResults, methods: Sequence[ShownMethod]) -> ReportTable:
    rows: list[list[str | int]] = []
    for method in methods:
        runs = reached(results, method["name"])
        costs = [spread(run.get(cost) for run in runs) for cost in COSTS]
        rows.append(
            [
                _label(method),
                len(runs),
                *(_spread(spread(run["accuracy"].get(domain) for run in runs)) for domain in results["domains"]),
                _spread(spread(_average_of(run) for run in runs)),
                *(shown_bytes(cost and cost[0]) for cost in costs[:2]),
                *(shown_seconds(cost and cost[0]) for cost in costs[2:]),
            ]
        )
    return ReportTable(["method", "seeds", *results["domains"], "average", "up", "down", "client", "server"], rows)


def _bars(results: BenchmarkResults, methods: Sequence[ShownMethod]) -> Figures:
    """A figure a domain and one for the average: a bar a method, its whisker the standard deviation."""
    figures = []
    labels = [_label(method) for method in methods]
    for domain in ["average", *results["domains"]]:
        known = [
            spread(
                _average_of(run) if domain == "average" else run["accuracy"].get(domain)
                for run in reached(results, m["name"])
            )
            for m in methods
        ]
        trace = {
            "type": "bar",
            "orientation": "h",
            "y": labels,
            "x": [each and round(each[0], 2) for each in known],
            "text": [f"{each[0]:.1f}" if each else "" for each in known],
            "textposition": "auto",
            "insidetextanchor": "start",
            "error_x": {
                "type": "data",
                "array": [(each and each[1]) or 0 for each in known],
                "thickness": 1,
                "width": 2,
            },
            "marker": {"color": [GROUPS[_group(method)] for method in methods]},
            "hovertemplate": "%{y}: %{x:.1f} %<extra></extra>",
        }
        layout = {
            "yaxis": {"type": "category", "autorange": "reversed", "showgrid": False, "dtick": 1},
            "xaxis": {"range": [0, 103], "tickvals": [0, 25, 50, 75, 100]},
            "showlegend": False,
        }
        figures.append(Figure([trace], layout, domain, 80 + 26 * len(labels)))
    return Figures(figures, "half")


def _by_bytes(results: BenchmarkResults, methods: Sequence[ShownMethod]) -> Figures:
    traces = []
    for i, method in enumerate(methods):
        up = spread(run["uplink_bytes_per_client_round"] for run in reached(results, method["name"]))
        if method["breaks_privacy"] or not up or not up[0]:
            continue
        average = spread(run["average_accuracy"] for run in reached(results, method["name"]))
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": method["name"],
                "x": [round(up[0])],
                "y": [average and round(average[0], 2)],
                "error_y": {"type": "data", "array": [(average and average[1]) or 0], "thickness": 1, "width": 3},
                "marker": {"size": 11, "color": COLOURS[i % len(COLOURS)], "symbol": i % 8},
                "hovertemplate": "%{fullData.name}: %{y:.1f} %, %{x:.4~s}B<extra></extra>",
            }
        )
    layout = {
        "xaxis": {"type": "log", "title": {"text": "bytes"}, "tickformat": "~s", "dtick": 1},
        "yaxis": {"title": {"text": METRICS[results["metric"]]}},
    }
    return Figures([Figure(traces, layout, height=360)], "whole")


def _by_round(results: BenchmarkResults, methods: Sequence[ShownMethod]) -> Figures:
    traces = []
    for i, method in enumerate(methods):
        by_round: dict[int, list[float]] = {}
        for run in reached(results, method["name"]):
            for line in run["accuracy_by_round"]:
                if line["accuracy"]:
                    after = line["round"] + (line["phase"] == "personalise")
                    by_round.setdefault(after, []).append(statistics.mean(line["accuracy"].values()))
        if by_round and not method["breaks_privacy"]:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": method["name"],
                    "x": sorted(by_round),
                    "y": [round(statistics.mean(by_round[after]), 2) for after in sorted(by_round)],
                    "line": {"color": COLOURS[i % len(COLOURS)], "dash": "solid" if i < len(COLOURS) else "dash"},
                    "hovertemplate": "%{fullData.name}, round %{x}: %{y:.1f} %<extra></extra>",
                }
            )
    layout = {
        "xaxis": {"title": {"text": "round"}, "dtick": 1},
        "yaxis": {"title": {"text": METRICS[results["metric"]]}},
    }
    return Figures([Figure(traces, layout, height=380)], "whole")


def _provenance(results: BenchmarkResults) -> Section:
    meanings = ReportTable(["method", "what it is"], [[_label(m), m["description"]] for m in results["methods"]])
    cells = [
        [
            cell["method"],
            cell["seed"],
            percent(cell["result"]["average_accuracy"]) if cell["result"] else cell["failure"] or "cut short",
            cell["command"],
        ]
        for cell in results["cells"]
    ]
    first: Mapping[str, Any] = next((cell["settings"] for cell in results["cells"]), {})
    common = [
        [key, str(value).lower()]
        for key, value in first.items()
        if all(c["settings"].get(key) == value for c in results["cells"])
    ]
    machine = results["machine"]
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']:.0f} GiB"
    text = f"{where}; commit {results['commit']}."
    blocks: list[ReportTable | Text] = [
        Text(results["command"], code=True),
        meanings,
        ReportTable(["method", "seed", "average", "command"], cells, f"every cell ({len(cells)})"),
        ReportTable(["setting", "value"], common, f"settings that all cells share ({len(common)})"),
        ReportTable(["package", "version"], list(results["versions"].items()), "versions"),
    ]
    return Section("Configuration", text, blocks)


def _average(results: BenchmarkResults, method: ShownMethod) -> float | None:
    known = spread(run["average_accuracy"] for run in reached(results, method["name"]))
    return known and known[0]


def _average_of(run: Mapping[str, Any]) -> float | None:
    return run["average_accuracy"]


def _spread(known: tuple[float, float | None] | None) -> str:
    if known is None:
        return "–"
    return f"{known[0]:.1f}" if known[1] is None else f"{known[0]:.1f} ± {known[1]:.1f}"


def _label(method: ShownMethod) -> str:
    return method["name"] + (f" {DAGGER}" if method["breaks_privacy"] else "")


def _group(method: ShownMethod) -> str:
    return "variant" if is_usual(method) else method["group"]
