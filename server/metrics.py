"""What the clients' evaluation counts add up to: accuracy per domain, the lines of metrics.jsonl, the summary.

For segmentation every `accuracy` is a mean intersection over union (mIoU), in percent too; the summary's `metric` says
which of the two it is.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from fmtda.adaptation.heads import HEADS, decisive
from fmtda.domains.registry import family
from fmtda.protocol.generative_settings import GenerativeSettings
from fmtda.protocol.records import BadReply
from fmtda.protocol.runtime import repair_torchvision
from fmtda.protocol.seeds import domain_of
from fmtda.protocol.settings import RunSettings, Settings

ACCURACY, MEAN_IOU, LOSS = "accuracy", "mean-iou", "loss"
"""What a run measures: percents of either kind, or a generative model's loss on held-out examples."""

METRIC_NAMES = {ACCURACY: "accuracy", MEAN_IOU: "mIoU", LOSS: "loss"}
"""As people are told."""

Counts = Mapping[str, int | float | list[int]]


def metric_of(settings: RunSettings) -> str:
    """What a run measures: `LOSS` of a generative model, else `MEAN_IOU` where labels are maps, else `ACCURACY`."""
    if isinstance(settings, GenerativeSettings):
        return LOSS
    return MEAN_IOU if family(settings.data).segmentation else ACCURACY


def check_counts(counts: Counts, classes: int, segmentation: bool = False) -> None:
    """Refuse evaluation counts that can't be true.

    Parameters
    ----------
    counts
        As they came.
    classes
        C of the run.
    segmentation
        Whether every head that has a number of right pixels has confusion counts too; else none has.

    Raises
    ------
    BadReply
        Naming the count.
    """
    examples = counts.get("num-examples", -1)
    if not isinstance(examples, int) or examples < 0:
        raise BadReply(f"num-examples is {examples}, expected a whole number from 0")
    for head in HEADS:
        correct = counts.get(f"correct-{head}", 0)
        if not isinstance(correct, int) or not 0 <= correct <= examples:
            raise BadReply(f"correct-{head} is {correct} of {examples} examples")
    counted = [head for head in HEADS if f"correct-{head}" in counts]
    if counted and not {"global", "personal"} & set(counted):
        raise BadReply(f"correct-{counted[0]} comes without correct-global")
    with_confusion = [head for head in HEADS if f"confusion-{head}" in counts]
    if with_confusion != (counted if segmentation else []):
        raise BadReply(f"confusion counts come for the heads {with_confusion}, right predictions for {counted}")
    for key in LABEL_FREE:
        if isinstance(counts.get(key), list):
            raise BadReply(f"{key} holds {len(counts[key])} numbers, expected one")
    for key in ("confusion", *(f"confusion-{head}" for head in HEADS)):
        confusion = counts.get(key, [0] * classes**2)
        if (
            not isinstance(confusion, list)
            or len(confusion) != classes**2
            or min(confusion) < 0
            or sum(confusion) > examples
        ):
            raise BadReply(f"{key}: the counts don't fit {classes} classes and {examples} examples")


def accuracy_by_domain(counts: Mapping[str, Counts]) -> dict[str, dict[str, float]]:
    """Accuracy in percent by domain and head, over all labelled test examples of a domain's clients.

    Where clients send the confusion counts of every head (segmentation), it is the mIoU over all their pixels.

    Parameters
    ----------
    counts
        Each client's evaluation counts by its name. Clients without labels have no ``correct-...`` and don't count.
    """
    accuracy: dict[str, dict[str, float]] = {}
    for domain in dict.fromkeys(domain_of(name) for name in counts):
        of_domain = [client for name, client in counts.items() if domain_of(name) == domain]
        for head in HEADS:
            maps = [client[f"confusion-{head}"] for client in of_domain if f"confusion-{head}" in client]
            if maps:
                accuracy.setdefault(domain, {})[head] = mean_iou(_added(maps))
                continue
            labelled = [client for client in of_domain if f"correct-{head}" in client]
            examples = sum(client["num-examples"] for client in labelled)
            if examples:
                correct = sum(client[f"correct-{head}"] for client in labelled)
                accuracy.setdefault(domain, {})[head] = 100 * correct / examples
    return accuracy


def confusion_by_domain(counts: Mapping[str, Counts]) -> dict[str, list[int]]:
    """The clients' confusion counts added up by domain: row-major, true class by predicted class."""
    by_domain: dict[str, list[list[int]]] = {}
    for name, client in counts.items():
        if "confusion" in client:
            by_domain.setdefault(domain_of(name), []).append(client["confusion"])
    return {domain: _added(confusions) for domain, confusions in by_domain.items()}


LABEL_FREE = {"entropy": "entropy in nats", "agreement": "agreement of F_g and F_l", "log-likelihood": "log-likelihood"}
"""What a client reports without a label, and as people are told."""


def label_free_by_domain(counts: Mapping[str, Counts]) -> dict[str, dict[str, float]]:
    """What the clients report without labels, by domain: a mean over its clients, weighted by their examples."""
    by_domain: dict[str, dict[str, float]] = {}
    for domain in dict.fromkeys(domain_of(name) for name in counts):
        of_domain = [c for name, c in counts.items() if domain_of(name) == domain and c["num-examples"]]
        for key in LABEL_FREE:
            known = [client for client in of_domain if key in client]
            if examples := sum(client["num-examples"] for client in known):
                total = sum(client["num-examples"] * client[key] for client in known)
                by_domain.setdefault(domain, {})[key] = total / examples
    return by_domain


def mean_iou(confusion: list[int]) -> float:
    """Mean intersection over union in percent, over the classes that are there or predicted, by torchmetrics."""
    return 100 * _jaccard(confusion, "macro").item()


def class_iou(confusion: list[int], classes: Sequence[str]) -> dict[str, float]:
    """Intersection over union of each class in percent; 0 for one that is neither there nor predicted."""
    return dict(zip(classes, (100 * _jaccard(confusion, "none")).tolist(), strict=True))


def _jaccard(confusion: list[int], average: Literal["macro", "none"]) -> torch.Tensor:
    repair_torchvision()  # torchmetrics imports it
    from torchmetrics.classification import MulticlassJaccardIndex

    classes = math.isqrt(len(confusion))
    metric = MulticlassJaccardIndex(classes, average=average)
    metric.confmat = torch.tensor(confusion).reshape(classes, classes)
    metric._update_count = 1  # its counts came over the wire and not through update()
    return metric.compute()


def _added(counts: list[list[int]]) -> list[int]:
    return [sum(column) for column in zip(*counts, strict=True)]


def summarise(settings: Settings, lines: list[dict[str, Any]], wall_seconds: float) -> dict[str, Any]:
    """The contents of summary.json out of all lines of metrics.jsonl."""
    start, rounds = lines[0], [line for line in lines if line["phase"] == "round" and line["round"] > 0]
    whole = [line for line in rounds if line.get("evaluated", True)]  # what a round costs, evaluation included
    heads = {domain: dict(by_head) for domain, by_head in lines[-1]["accuracy"].items()}
    accuracy = {domain: decisive(by_head, settings.inference) for domain, by_head in heads.items()}
    metric = metric_of(settings)
    iou = {}
    if metric == MEAN_IOU:
        iou["class_iou"] = {d: class_iou(c, settings.class_names) for d, c in lines[-1]["confusion"].items()}
    private = {}
    if settings.private:
        private["privacy"] = {"delta": settings.privacy_delta, "epsilon": epsilon_by_client(lines)}
    return {
        "workload": settings.workload,
        "strategy": settings.strategy,
        "preset": settings.preset,
        "data": settings.data,
        "source": settings.source,
        "targets": list(settings.target_domains),
        "seed": settings.seed,
        "rounds": settings.rounds,
        "clients": settings.clients,
        "inference": settings.inference,
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
    """What each client said last of what its uploads have given away, out of all lines of metrics.jsonl."""
    found = {
        name: client["train"]["epsilon"]
        for line in lines
        for name, client in line["clients"].items()
        if "epsilon" in client["train"]
    }
    return dict(sorted(found.items()))


def mean(values: Any) -> float | None:
    """The mean, or None of nothing."""
    values = list(values)
    return sum(values) / len(values) if values else None
