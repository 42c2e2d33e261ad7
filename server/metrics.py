"""Adds up the lines of metrics.jsonl to a run's summary.

For segmentation every `accuracy` is a mean intersection over union (mIoU), in percent too; the summary's `metric` says
which of the two it is.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fmtda.adaptation.heads import decisive
from fmtda.adaptation.scores import class_iou
from fmtda.protocol.client_names import domain_of
from fmtda.protocol.settings import AdaptationSettings

ACCURACY, MEAN_IOU, LOSS = "accuracy", "mean-iou", "loss"
"""What a run measures: percents of either kind, or a generative model's loss on held-out examples."""

METRIC_NAMES = {ACCURACY: "accuracy", MEAN_IOU: "mIoU", LOSS: "loss"}
"""As people are told."""


def summarise(
    settings: AdaptationSettings, inference: str, metric: str, lines: list[dict[str, Any]], wall_seconds: float
) -> dict[str, Any]:
    """Make the contents of summary.json out of all lines of metrics.jsonl."""
    start, rounds = lines[0], [line for line in lines if line["phase"] == "round" and line["round"] > 0]
    whole = [line for line in rounds if line.get("evaluated", True)]  # what a round costs, evaluation included
    heads = {domain: dict(by_head) for domain, by_head in lines[-1]["accuracy"].items()}
    accuracy = {domain: decisive(by_head, inference) for domain, by_head in heads.items()}
    iou = {}
    if metric == MEAN_IOU:
        iou["class_iou"] = {d: class_iou(c, settings.class_names) for d, c in lines[-1]["confusion"].items()}
    private = {}
    if settings.private:
        private["privacy"] = {"delta": settings.privacy.delta, "epsilon": epsilon_by_client(lines)}
    return {
        "workload": settings.workload,
        "strategy": settings.strategy,
        "preset": settings.preset,
        "data": settings.data.name,
        "source": settings.data.source,
        "targets": list(settings.target_domains),
        "seed": settings.seed,
        "rounds": settings.rounds,
        "clients": settings.clients,
        "inference": inference,
        "metric": metric,
        "accuracy": accuracy,
        "average_accuracy": mean(accuracy.values()) if set(start["source_only"]) <= set(accuracy) else None,
        "accuracy_by_head": heads,
        "confusion": lines[-1]["confusion"],
        "label_free": next((line["label_free"] for line in reversed(lines) if line.get("label_free")), {}),
        **iou,
        **private,
        "source_only": start["source_only"],
        "plain_source_only": start["plain_source_only"],
        "uplink_bytes_per_client_round": mean(c["up"] for line in whole for c in line["clients"].values()),
        "downlink_bytes_per_client_round": mean(c["down"] for line in whole for c in line["clients"].values()),
        "client_seconds_per_round": mean(c["seconds"] for line in whole for c in line["clients"].values()),
        "personalise_seconds_per_client": mean(
            client["seconds"] for line in lines if line["phase"] == "personalise" for client in line["clients"].values()
        ),
        "server_seconds_per_round": mean(line["server_seconds"] for line in rounds),
        "wall_seconds": wall_seconds,
        "failures": sum(len(line["failures"]) for line in lines),
    }


def epsilon_by_client(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Find, in all lines of metrics.jsonl, what each client said last of what its uploads have given away."""
    found = {
        name: client["train"]["epsilon"]
        for line in lines
        for name, client in line["clients"].items()
        if "epsilon" in client["train"]
    }
    return dict(sorted(found.items()))


def newcomers_of(lines: Iterable[Mapping[str, Any]], inference: str) -> dict[str, Any]:
    """Make what summary.json says of the clients that joined late, out of the lines of metrics.jsonl.

    Returns
    -------
    dict
        By client: the round in which it `joined`, its neighbours `nearest` then, and by the number of rounds since the
        accuracy of its domain in percent, `accuracy_after`; empty where nobody has labels.
    """
    found: dict[str, Any] = {}
    for line in lines:
        for name, news in line.get("newcomers", {}).items():
            found.setdefault(name, {"joined": news["joined"], "nearest": news["nearest"], "accuracy_after": {}})
        for name, newcomer in found.items():
            heads = line["accuracy"].get(domain_of(name))
            if heads and line.get("evaluated", True) and line["phase"] == "round":
                after = str(line["round"] - newcomer["joined"])
                newcomer["accuracy_after"][after] = decisive(heads, inference)
    return found


def mean(values: Any) -> float | None:
    """Compute the mean, or None of nothing."""
    values = list(values)
    return sum(values) / len(values) if values else None
