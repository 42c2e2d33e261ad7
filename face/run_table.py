"""Prints the table at the end of a run: accuracy or mIoU per target, a generative model's loss, bytes and seconds."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fmtda.adaptation.scores import LABEL_FREE
from fmtda.face.console import plain
from fmtda.server.metrics import METRIC_NAMES

COLUMNS = {"global": "F_g", "local": "F_l", "mean": "mean", "personal": "personalised"}


def print_run(console: Console, summary: dict[str, Any], path: Path) -> None:
    """Print what a run reached, what it cost, and where it lies."""
    heads = [head for head in COLUMNS if any(head in by_head for by_head in summary["accuracy_by_head"].values())]
    metric = METRIC_NAMES[summary["metric"]]
    table = Table(title=plain(f"{summary['strategy']} on {summary['data']}: {metric} in percent per target domain"))
    for column in ("target", "plain source-only", "source-only", *(COLUMNS[head] for head in heads)):
        table.add_column(column, justify="left" if column == "target" else "right")
    for domain, by_head in summary["accuracy_by_head"].items():
        start = (summary["plain_source_only"].get(domain), summary["source_only"].get(domain))
        table.add_row(plain(domain), *map(_percent, (*start, *(by_head.get(head) for head in heads))))
    table.add_section()
    columns = [summary["plain_source_only"], summary["source_only"]]
    columns += [{d: by[head] for d, by in summary["accuracy_by_head"].items() if head in by} for head in heads]
    average = "average"
    if summary.get("newcomers"):  # before they joined, nobody measured their domains
        average += " of those there from the start"
        columns = [{d: value for d, value in c.items() if d in summary["source_only"]} for c in columns]
    table.add_row(average, *(_percent(sum(c.values()) / len(c) if c else None) for c in columns))
    if summary["accuracy"] or summary["source_only"]:
        console.print(table)
    _print_newcomers(console, summary)
    _print_label_free(console, summary)
    _print_privacy(console, summary)
    _print_costs(console, summary, path)


def _print_newcomers(console: Console, summary: dict[str, Any]) -> None:
    """Print who joined late: near whom, and how good its domain's predictions were after how many rounds."""
    newcomers = summary.get("newcomers", {})
    if not newcomers:
        return
    rounds = sorted({int(after) for newcomer in newcomers.values() for after in newcomer["accuracy_after"]})
    metric = METRIC_NAMES[summary["metric"]]
    table = Table("client", "round", title=f"joined late: {metric} in percent after so many rounds")
    table.add_column("nearest (weight, divergence in nats)")
    for after in rounds:
        table.add_column(str(after), justify="right")
    for name, newcomer in newcomers.items():
        nearest = Text("\n").join(
            plain(f"{other} ({found['weight']:.2f}, {found['divergence']:.3g})")
            for other, found in newcomer["nearest"].items()
        )
        reached = (_percent(newcomer["accuracy_after"].get(str(after))) for after in rounds)
        table.add_row(plain(name), str(newcomer["joined"]), nearest or "-", *reached)
    console.print(table)


def _print_label_free(console: Console, summary: dict[str, Any]) -> None:
    """Print what is known of the domains whose clients have no labels."""
    unlabelled = {d: known for d, known in summary.get("label_free", {}).items() if d not in summary["accuracy"]}
    if not unlabelled:
        return
    table = Table("target without labels", title="what can be told without a label")
    for meaning in LABEL_FREE.values():
        table.add_column(meaning, justify="right")
    for domain, known in unlabelled.items():
        table.add_row(plain(domain), *("-" if key not in known else f"{known[key]:.3g}" for key in LABEL_FREE))
    console.print(table)


def _print_privacy(console: Console, summary: dict[str, Any]) -> None:
    """Print what the uploads of the client that sent most have given away."""
    spent = summary.get("privacy", {}).get("epsilon", {})
    if spent:
        name = max(spent, key=spent.__getitem__)
        told = (
            f"privacy: the uploads of a client give away epsilon {spent[name]:.3g} of an example at most ({name}), "
            f"at delta {summary['privacy']['delta']:g}; what that covers: docs/privacy.md"
        )
        console.print(plain(told), soft_wrap=True)


def print_generated(console: Console, summary: dict[str, Any], path: Path) -> None:
    """Print what a generative run reached, what it cost, and where it lies."""
    title = f"{summary['workload']} by {summary['strategy']} on {summary['data']}: {summary['gradient_steps']} steps"
    table = Table("domain", title=plain(title))
    table.add_column("loss on held-out examples", justify="right")
    for domain, loss in summary["loss"].items():
        table.add_row(plain(domain), f"{loss:.4g}")
    console.print(table)
    _print_costs(console, summary, path)
    console.print(plain(f"more samples: fmtda sample {path}"), soft_wrap=True)


def _print_costs(console: Console, summary: dict[str, Any], path: Path) -> None:
    up, down = summary["uplink_bytes_per_client_round"], summary["downlink_bytes_per_client_round"]
    console.print(
        f"per client and round: {_bytes(up)} up, {_bytes(down)} down, "
        f"{summary['client_seconds_per_round'] or 0:.2f} s on the client; "
        f"{summary['server_seconds_per_round'] or 0:.2f} s a round on the server; "
        f"{summary['wall_seconds']:.0f} s in all; {summary['failures']} failures",
        highlight=False,
    )
    console.print(plain(f"run directory: {path}"), soft_wrap=True)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _bytes(count: float | None) -> str:
    if count is None:
        return "0 B"
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
