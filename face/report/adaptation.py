"""Reports a run of domain adaptation: accuracy by domain and round, confusion, the weights w_S."""

from collections.abc import Mapping
from typing import Any

from fmtda.face.report import newcomers
from fmtda.face.report.blocks import (
    COLOURS,
    GREY,
    Figure,
    Figures,
    ReportTable,
    Section,
    enumerated,
    percent,
    plural,
    rounds_axis,
)
from fmtda.face.report.runs import Run
from fmtda.protocol.client_names import domain_of
from fmtda.server.metrics import METRIC_NAMES, mean
from fmtda.server.workload_kinds import metric_of

HEADS = {
    "global": ("F_g", "#0072B2"),
    "local": ("F_l", "#E69F00"),
    "mean": ("mean of both", "#009E73"),
    "personal": ("with own copy", "#CC79A7"),
}
LABELLED_CELLS = 12
"""Classes up to which a cell of a confusion matrix shows its number."""

NAMED_CLASSES = 40
"""Classes up to which the axes name them."""


def sentence(run: Run) -> str:
    """Say what was trained and how well."""
    settings, metric = run.adaptation_settings, METRIC_NAMES[metric_of(run.settings)]
    start = run.lines[0].get("source_only", {})
    plain = run.lines[0].get("plain_source_only", {})
    adapted = (
        f"{settings.strategy} (preset {settings.preset}) adapted a {settings.network.name} network from "
        f"{settings.data.source} to {enumerated(settings.target_domains)} over {plural(settings.clients, 'client')} in "
        f"{plural(len(run.rounds), 'round')}."
    )
    if run.average is None:
        return f"{adapted} The clients have no labels, so there is no {metric}."
    reached = f" It reached {percent(run.average)} {metric} on average over the targets"
    if both := [domain for domain in start if domain in run.reached]:
        before, after = (sum(column[domain] for domain in both) / len(both) for column in (start, run.reached))
        gain = after - before
        whose = ", " if len(both) == len(run.reached) else "; those that were measured before too are "
        way = "above" if gain >= 0 else "below"
        reached += f"{whose}{abs(gain):.1f} points {way} the pre-trained network's {percent(before)}"
    if plain and plain != start:
        reached += f"; the same network without any extra has {percent(mean(plain.values()))}"
    return f"{adapted}{reached}.{newcomers.sentence(run)}"


def sections(run: Run) -> list[Section]:
    """Show everything that the run's numbers tell."""
    made = [_by_domain(run), newcomers.section(run), _by_round(run), _confusion(run), _source_weights(run)]
    return [section for section in made if section]


def _by_domain(run: Run) -> Section | None:
    metric = METRIC_NAMES[metric_of(run.settings)]
    start = run.lines[0]
    columns = {
        "plain source-only": start.get("plain_source_only", {}),
        "source-only": start.get("source_only", {}),
        "adapted": run.reached,
    }
    if columns["plain source-only"] == columns["source-only"]:
        del columns["plain source-only"]
    domains = list(dict.fromkeys(domain for column in columns.values() for domain in column))
    if not domains:
        return None
    from_the_start = [domain for domain in domains if domain in columns["source-only"]] or domains
    average = "average" if len(from_the_start) == len(domains) else "average of those there from the start"
    shown = [*domains, *([average] if len(domains) > 1 else [])]
    colours = {"plain source-only": GREY, "source-only": COLOURS[4], "adapted": COLOURS[0]}
    averages = {name: mean(column[d] for d in from_the_start if d in column) for name, column in columns.items()}
    traces = []
    for name, column in columns.items():
        values = [*(column.get(domain) for domain in domains), averages[name]][: len(shown)]
        traces.append(
            {
                "type": "bar",
                "name": name,
                "x": shown,
                "y": values,
                "marker": {"color": colours[name]},
                "text": ["" if value is None else f"{value:.1f}" for value in values],
                "textposition": "outside",
                "textfont": {"size": 10},
                "cliponaxis": False,
                "hovertemplate": "%{x}, %{fullData.name}: %{y:.1f} %<extra></extra>",
            }
        )
    layout = {
        "barmode": "group",
        "bargap": 0.25,
        "yaxis": {"range": [0, 108], "title": {"text": f"{metric} in percent"}, "tickvals": [0, 25, 50, 75, 100]},
        "xaxis": {"type": "category"},
    }
    rows = [
        [domain, *(percent(column.get(domain)) for column in columns.values()), _gain(columns, domain)]
        for domain in domains
    ]
    if len(domains) > 1:
        before, after = averages["source-only"], averages["adapted"]
        gain = "–" if before is None or after is None else f"{after - before:+.1f}"
        rows.append([average, *(percent(value) for value in averages.values()), gain])
    text = (
        "Source-only is F_g right after pre-training, before a client has trained"
        + ("; plain source-only is the same network pre-trained without any extra" if len(columns) > 2 else "")
        + f". Every value is the {metric} on the test examples of all clients of a domain."
    )
    figures = Figures([Figure(traces, layout, height=360)], "whole")
    return Section(
        f"{metric[0].upper()}{metric[1:]} per domain", text, [figures, ReportTable(["domain", *columns, "gain"], rows)]
    )


def _gain(columns: Mapping[str, Mapping[str, float]], domain: str) -> str:
    if domain not in columns["adapted"] or domain not in columns["source-only"]:
        return "–"
    return f"{columns['adapted'][domain] - columns['source-only'][domain]:+.1f}"


def _by_round(run: Run) -> Section | None:
    courses: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for line in run.evaluated:
        for domain, heads in line["accuracy"].items():
            for head, value in heads.items():
                if head == "personal" or line["phase"] == "round":
                    after = line["round"] + (line["phase"] != "round")
                    courses.setdefault(domain, {}).setdefault(head, []).append((after, value))
    if not courses:
        return None
    values = [value for heads in courses.values() for course in heads.values() for _, value in course]
    low, high = max(0, min(values) - 5), min(100, max(values) + 5)
    figures = []
    for domain, heads in courses.items():
        traces = []
        for head, course in heads.items():
            name, colour = HEADS[head]
            rounds, reached = zip(*course, strict=True)
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": name,
                    "x": rounds,
                    "y": reached,
                    "line": {"color": colour, "width": 2},
                    "marker": {
                        "size": 11 if head == "personal" else 5,
                        "symbol": "star" if head == "personal" else "circle",
                    },
                    "hovertemplate": "%{fullData.name}, round %{x}: %{y:.1f} %<extra></extra>",
                }
            )
        layout = {"yaxis": {"range": [low, high]}, "xaxis": rounds_axis(run.lines[-1]["round"] + 1)}
        figures.append(Figure(traces, layout, domain, 280))
    text = "Round 0 is the pre-trained network. F_g is the server's classifier, F_l the client's own."
    if any("personal" in heads for heads in courses.values()):
        text += " The star is the copy that each client trained for itself at the end."
    return Section("Rounds", text, [Figures(figures, "half" if len(figures) in (1, 2, 4) else "third")])


def _confusion(run: Run) -> Section | None:
    first, last = (line["confusion"] for line in (run.lines[0], (run.evaluated or run.lines)[-1]))
    classes = list(run.settings.class_names)
    figures = []
    for domain, counts in last.items():
        if domain in first:
            figures.append(_matrix(first[domain], classes, f"{domain}, source-only"))
        figures.append(_matrix(counts, classes, f"{domain}, adapted"))
    if not figures:
        return None
    text = "Rows are true classes, columns predicted ones; a cell is the share of its row in percent."
    return Section("Confusion", text, [Figures(figures, "half")])


def _matrix(counts: list[int], classes: list[str], title: str) -> Figure:
    size = len(classes)
    rows = [counts[start : start + size] for start in range(0, size * size, size)]
    shares = [[round(100 * count / sum(row), 1) if sum(row) else 0.0 for count in row] for row in rows]
    named = size <= NAMED_CLASSES
    trace = {
        "type": "heatmap",
        "z": shares,
        "customdata": rows,
        "zmin": 0,
        "zmax": 100,
        "colorscale": [[0, "rgba(0,114,178,0.02)"], [0.02, "rgba(0,114,178,0.12)"], [1, "rgba(0,114,178,1)"]],
        "showscale": False,
        "xgap": 1 if named else 0,
        "ygap": 1 if named else 0,
        "hovertemplate": "true %{y}, predicted %{x}: %{z:.1f} %, %{customdata} of them<extra></extra>",
    }
    if named:
        trace |= {"x": classes, "y": classes}
    if size <= LABELLED_CELLS:
        trace |= {
            "text": [[f"{share:.0f}" if share >= 0.5 else "" for share in row] for row in shares],
            "texttemplate": "%{text}",
            "textfont": {"size": 10},
        }
    ticks = (
        {"type": "category", "showgrid": False, "dtick": 1} if named else {"showticklabels": False, "showgrid": False}
    )
    layout = {
        "xaxis": {**ticks, "side": "bottom", "title": {"text": "predicted", "standoff": 4}},
        "yaxis": {**ticks, "autorange": "reversed", "title": {"text": "true", "standoff": 4}},
    }
    return Figure([trace], layout, title, 360)


def _source_weights(run: Run) -> Section | None:
    means: dict[str, list[tuple[int, float]]] = {}
    shares: dict[str, list[float]] = {}
    for line in run.rounds:
        by_domain: dict[str, list[dict[str, Any]]] = {}
        for name, client in line["clients"].items():
            if {"source-typicality", "num-examples"} <= client["train"].keys():
                by_domain.setdefault(domain_of(name), []).append(client["train"])
        for domain, trained in by_domain.items():
            examples = sum(each["num-examples"] for each in trained)
            weighted = sum(each["num-examples"] * each["source-typicality"] for each in trained)
            means.setdefault(domain, []).append((line["round"], weighted / max(1, examples)))
            counts = [each.get("source-typicality-counts", []) for each in trained]
            if len({len(each) for each in counts}) == 1 and counts[0]:
                added = [sum(column) for column in zip(*counts, strict=True)]
                shares[domain] = [100 * count / max(1, sum(added)) for count in added]
    if not means:
        return None
    colours = {domain: COLOURS[i % len(COLOURS)] for i, domain in enumerate(means)}
    course = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": domain,
            "x": [at for at, _ in points],
            "y": [round(value, 4) for _, value in points],
            "line": {"color": colours[domain]},
            "hovertemplate": "%{fullData.name}, round %{x}: %{y:.2f}<extra></extra>",
        }
        for domain, points in means.items()
    ]
    rounds = rounds_axis(run.lines[-1]["round"])
    figures = []
    if shares:
        histogram = [
            {
                "type": "scatter",
                "mode": "lines",
                "line": {"shape": "hvh", "color": colours[domain]},
                "name": domain,
                "x": [round((i + 0.5) / len(values), 3) for i in range(len(values))],
                "y": [round(share, 2) for share in values],
                "hovertemplate": "%{fullData.name}, w_S about %{x}: %{y:.1f} %<extra></extra>",
            }
            for domain, values in shares.items()
        ]
        axes = {
            "xaxis": {"title": {"text": "w_S"}, "range": [0, 1]},
            "yaxis": {"title": {"text": "% of examples"}, "rangemode": "tozero"},
        }
        figures.append(Figure(histogram, axes, "in the last round"))
    layout = {"xaxis": rounds, "yaxis": {"title": {"text": "mean w_S"}, "range": [0, 1]}}
    figures.append(Figure(course, layout, "mean by round"))
    text = (
        "How usual a client's examples are among the source's features: 0 for one less likely than all of the source's "
        "own, 0.5 for one in their middle. In Eq. 5, F_l keeps to F_g's decision as far as w_S says. Clients report "
        "the mean and ten counts."
    )
    return Section("Weights w_S", text, [Figures(figures, "half")])
