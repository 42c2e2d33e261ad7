"""How good predictions are: counts of a client's test examples, and what the counts of many add up to.

A client counts (`Tally`); nothing but its counts leaves it. The server adds them up by domain: accuracy, or for
segmentation the mean intersection over union (mIoU), in percent, and what can be told without a label.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fmtda.adaptation.heads import HEADS
from fmtda.protocol.client_names import domain_of
from fmtda.protocol.metrics import NUM_EXAMPLES, Metric, count, counts, number, share
from fmtda.protocol.runtime import repair_torchvision

EvaluationCounts = Mapping[str, Any]
"""What a client reports of its test examples, see `Tally.counts`: numbers, and lists of whole numbers."""

CONFUSION = "confusion"
"""The confusion counts of the head that counts; with a dash and a head's name, those of that head."""

LABEL_FREE = {"entropy": "entropy in nats", "agreement": "agreement of F_g and F_l", "log-likelihood": "log-likelihood"}
"""What a client reports without a label, and as people are told."""


EXACT_BITS = 52
"""Of a sum of counts that every float64 and int64 holds exactly."""


class Tally:
    """Counts right predictions over batches.

    Parameters
    ----------
    decisive : str
        The head whose entropy and confusion counts (true class by predicted class, row-major) are reported.
    classes : int
        C.
    segmentation : bool
        Whether the confusion counts of every head are needed.
    """

    def __init__(self, decisive: str, classes: int, segmentation: bool) -> None:
        self.decisive, self.classes, self.segmentation = decisive, classes, segmentation
        self._predictions = self._labels = self._agreed = 0
        self._entropy = 0.0
        self._confusions: dict[str, Tensor] = {}
        self._compared = False
        self._log_likelihoods: list[Tensor] = []

    def add(self, probabilities: Mapping[str, Tensor], labels: Tensor, log_likelihoods: Tensor | None = None) -> None:
        """Count a batch.

        Parameters
        ----------
        probabilities : mapping of str to Tensor
            (B, C) or (B, C, H, W) by head.
        labels : Tensor
            int64 (B,) or (B, H, W), -1 where unknown; (B,) of -1 beside predictions of pixels says unlabelled.
        log_likelihoods : Tensor, optional
            Of the examples, or of places of their maps, under the client's mixture, in nats.
        """
        predicted = {head: p.argmax(dim=1) for head, p in probabilities.items()}
        self._predictions += predicted[self.decisive].numel()
        self._entropy += torch.special.entr(probabilities[self.decisive]).sum().item()
        if log_likelihoods is not None:
            self._log_likelihoods.append(log_likelihoods)
        if {"global", "local"} <= set(predicted):
            self._compared = True
            self._agreed += int((predicted["global"] == predicted["local"]).sum())
        if labels.shape != predicted[self.decisive].shape:
            return
        known = labels >= 0
        self._labels += int(known.sum())
        for head, classes in predicted.items():
            cells = labels[known] * self.classes + classes[known]
            counts = torch.bincount(cells, minlength=self.classes**2)
            self._confusions[head] = self._confusions.get(head, torch.zeros_like(counts)) + counts

    def counts(self) -> dict[str, int | float | list[int]]:
        """Return what was counted.

        Returns
        -------
        dict
            `num-examples`; `entropy` in nats; `agreement` of F_g and F_l where both predict, in [0, 1];
            `log-likelihood`, a mean in nats, where there was one. Where there are labels `correct-HEAD`, `confusion`
            and, for segmentation, `confusion-HEAD`; `num-examples` is then the number of labels, pixels for
            segmentation.
        """
        counts: dict[str, int | float | list[int]] = {"num-examples": self._labels or self._predictions}
        if self._predictions:
            counts["entropy"] = self._entropy / self._predictions
        if self._compared:
            counts["agreement"] = self._agreed / self._predictions
        if self._log_likelihoods:
            counts["log-likelihood"] = torch.cat(self._log_likelihoods).mean().item()
        if not self._labels:
            return counts
        for head, confusion in self._confusions.items():
            counts[f"correct-{head}"] = int(confusion.reshape(self.classes, self.classes).trace())
            if self.segmentation:
                counts[f"confusion-{head}"] = confusion.tolist()
        counts["confusion"] = self._confusions[self.decisive].tolist()
        return counts


def counted_metrics(classes: int) -> tuple[Metric, ...]:
    """Declare what `Tally.counts` may return for so many classes, each with its range."""
    size = classes**2
    return (
        count(NUM_EXAMPLES, required=True),
        number("entropy", -1e-3, 1.01 * math.log(classes) + 1e-3),  # its probabilities may be bfloat16's
        share("agreement"),
        number("log-likelihood"),
        *(count(f"correct-{head}") for head in HEADS),
        counts(CONFUSION, size),
        *(counts(f"{CONFUSION}-{head}", size) for head in HEADS),
    )


def accuracy_by_domain(counts: Mapping[str, EvaluationCounts]) -> dict[str, dict[str, float]]:
    """Accuracy in percent by domain and head, over all labelled test examples of a domain's clients.

    Where clients send the confusion counts of every head (segmentation), it is the mIoU over all their pixels.

    Parameters
    ----------
    counts
        Each client's evaluation counts by its name. Clients without labels have no ``correct-...`` and don't count.

    Notes
    -----
    Counts are a client's own word. They are held to what is possible and to as many examples as it said it has, and
    they count in the domain of its name alone: a client that lies moves that domain's figure, and no other.
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


def confusion_by_domain(counts: Mapping[str, EvaluationCounts]) -> dict[str, list[int]]:
    """The clients' confusion counts added up by domain: row-major, true class by predicted class."""
    by_domain: dict[str, list[list[int]]] = {}
    for name, client in counts.items():
        if "confusion" in client:
            by_domain.setdefault(domain_of(name), []).append(client["confusion"])
    return {domain: _added(confusions) for domain, confusions in by_domain.items()}


def label_free_by_domain(counts: Mapping[str, EvaluationCounts]) -> dict[str, dict[str, float]]:
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
    scale = max(1, sum(confusion) >> EXACT_BITS)  # torch's sums hold no more; what many clients say may be more
    confusion = [cell // scale for cell in confusion] if scale > 1 else confusion
    metric = MulticlassJaccardIndex(classes, average=average)
    metric.confmat = torch.tensor(confusion).reshape(classes, classes)
    metric._update_count = 1  # its counts came over the wire and not through update()
    return metric.compute()


def _added(counts: list[list[int]]) -> list[int]:
    return [sum(column) for column in zip(*counts, strict=True)]
