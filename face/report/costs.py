"""Reports what a run cost: bytes and seconds by client."""

from typing import Any

from fmtda.face.report.blocks import (
    COLOURS,
    Figure,
    Figures,
    ReportTable,
    Section,
    TableCell,
    shown_bytes,
    shown_seconds,
)
from fmtda.face.report.runs import Run
from fmtda.protocol.client_names import domain_of
from fmtda.server.metrics import mean

BARS = 24
"""Clients up to which each has a bar; more are spread by domain."""

COSTS = {"up": "uploaded bytes", "down": "downloaded bytes", "seconds": "seconds of work"}


def section(run: Run) -> Section | None:
    """Show means over a client's rounds that have an evaluation, training and evaluation together."""
    seen: dict[str, list[dict]] = {}
    whole = [line for line in run.rounds if line.get("evaluated", True)]
    for line in whole:
        for name, client in line["clients"].items():
            seen.setdefault(name, []).append(client)
    if not seen:
        return None
    by_client = {
        name: {cost: sum(client[cost] for client in clients) / len(clients) for cost in COSTS}
        for name, clients in sorted(seen.items())
    }
    figures = [_figure(by_client, cost, title) for cost, title in COSTS.items()]
    server = [line["server_seconds"] for line in whole if "server_seconds" in line]
    rows: list[list[TableCell]] = [
        [
            name,
            domain_of(name),
            len(seen[name]),
            shown_bytes(c["up"]),
            shown_bytes(c["down"]),
            shown_seconds(c["seconds"]),
        ]
        for name, c in by_client.items()
    ]
    table = ReportTable(["client", "domain", "rounds", "up", "down", "seconds"], rows, f"every client ({len(rows)})")
    text = (
        "By client, the mean over its rounds that have an evaluation. On average a client uploads "
        f"{shown_bytes(run.cost('up'))} and downloads {shown_bytes(run.cost('down'))} a round and works "
        f"{shown_seconds(run.cost('seconds'))}; the server works {shown_seconds(mean(server))} a round."
    )
    return Section("Bytes and seconds", text, [Figures(figures, "third"), table])


def _figure(by_client: dict[str, dict[str, float]], cost: str, title: str) -> Figure:
    domains = list(dict.fromkeys(domain_of(name) for name in by_client))
    colours = {domain: COLOURS[i % len(COLOURS)] for i, domain in enumerate(domains)}
    values = {name: round(costs[cost], 3) for name, costs in by_client.items()}
    axis: dict[str, Any] = {"rangemode": "tozero", "tickformat": "~s", "nticks": 4}
    if len(by_client) <= BARS:
        trace = {
            "type": "bar",
            "orientation": "h",
            "y": list(values),
            "x": list(values.values()),
            "marker": {"color": [colours[domain_of(name)] for name in values]},
            "hovertemplate": "%{y}: %{x:.4~s}<extra></extra>",
        }
        layout: dict[str, Any] = {
            "yaxis": {"type": "category", "autorange": "reversed", "dtick": 1, "showgrid": False},
            "xaxis": axis,
        }
        return Figure([trace], {**layout, "showlegend": False}, title, 90 + 22 * max(3, len(values)))
    traces = [
        {
            "type": "box",
            "name": domain,
            "x": [value for name, value in values.items() if domain_of(name) == domain],
            "text": [name for name in values if domain_of(name) == domain],
            "orientation": "h",
            "boxpoints": "all",
            "jitter": 0.6,
            "pointpos": 0,
            "marker": {"size": 3, "color": colours[domain], "opacity": 0.6},
            "line": {"width": 1},
            "hovertemplate": "%{text}: %{x:.4~s}<extra></extra>",
        }
        for domain in domains
    ]
    layout = {
        "showlegend": False,
        "xaxis": axis,
        "yaxis": {"type": "category", "autorange": "reversed", "showgrid": False},
    }
    return Figure(traces, layout, title, 110 + 55 * len(domains))
