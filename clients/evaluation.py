"""Evaluation on a client's test examples: what is right where there are labels, what can be told where there are none.

Labels are looked at here alone, and nothing but counts leaves the client.
"""

import time
from collections.abc import Callable

import torch
from flwr.app import Message
from torch import Tensor

from fmtda.adaptation.batches import forward_slices
from fmtda.adaptation.network import Network
from fmtda.clients.identity import Client
from fmtda.clients.network import inputs_of, received_network
from fmtda.domains.registry import family
from fmtda.protocol.records import reply_to

Counts = dict[str, int | float | list[int]]
Predict = Callable[[Tensor], dict[str, Tensor]]
"""From inputs (B, ...) to class probabilities (B, C), or (B, C, H, W), by head."""


def evaluate(message: Message, client: Client) -> Message:
    """Predict by F_g as it came, with nothing of the client's own."""
    began = time.perf_counter()
    return report(message, client, received_network(message, client), began)


def report(message: Message, client: Client, network: Network, began: float) -> Message:
    """Reply with the counts of a network that predicts in F_g's place; `began` is the clock when the work did."""
    counts = count(client, lambda inputs: {"global": network(inputs).softmax(dim=1)}, "global")
    return reply_to(message, client.name, {"seconds": time.perf_counter() - began, **counts})


@torch.no_grad()
def count(client: Client, predict: Predict, decisive: str) -> Counts:
    """Predict the client's test examples batch by batch, and add up how good the predictions are.

    Parameters
    ----------
    client
        Whose test examples.
    predict
        Class probabilities by head.
    decisive
        The head whose entropy and confusion counts (true class by predicted class, row-major) are reported.

    Returns
    -------
    dict
        `num-examples`; `entropy` in nats; `agreement` of F_g and F_l where both predict, in [0, 1]. Where there are
        labels `correct-HEAD`, `confusion` and, for segmentation, `confusion-HEAD`; `num-examples` is then the number
        of labels, pixels for segmentation.
    """
    settings = client.settings
    tally = _Tally(decisive, len(settings.class_names), family(settings.data).segmentation)
    inputs = inputs_of(client, client.test)
    for part in forward_slices(inputs):
        tally.add(predict(inputs[part]), client.test.labels[part].to(inputs.device).long())
    return tally.counts()


class _Tally:
    """Sums over batches."""

    def __init__(self, decisive: str, classes: int, segmentation: bool) -> None:
        self.decisive, self.classes, self.segmentation = decisive, classes, segmentation
        self.predictions = self.labels = self.agreed = 0
        self.entropy = 0.0
        self.confusions: dict[str, Tensor] = {}
        self.compared = False

    def add(self, probabilities: dict[str, Tensor], labels: Tensor) -> None:
        predicted = {head: p.argmax(dim=1) for head, p in probabilities.items()}
        self.predictions += predicted[self.decisive].numel()
        self.entropy += torch.special.entr(probabilities[self.decisive]).sum().item()
        if {"global", "local"} <= set(predicted):
            self.compared = True
            self.agreed += int((predicted["global"] == predicted["local"]).sum())
        if labels.shape != predicted[self.decisive].shape:
            return  # one -1 a picture where a map of labels would be: unlabelled
        known = labels >= 0
        self.labels += int(known.sum())
        for head, classes in predicted.items():
            cells = labels[known] * self.classes + classes[known]
            counts = torch.bincount(cells, minlength=self.classes**2)
            self.confusions[head] = self.confusions.get(head, 0) + counts

    def counts(self) -> Counts:
        counts: Counts = {"num-examples": self.labels or self.predictions}
        if self.predictions:
            counts["entropy"] = self.entropy / self.predictions
        if self.compared:
            counts["agreement"] = self.agreed / self.predictions
        if not self.labels:
            return counts
        for head, confusion in self.confusions.items():
            counts[f"correct-{head}"] = int(confusion.reshape(self.classes, self.classes).trace())
            if self.segmentation:
                counts[f"confusion-{head}"] = confusion.tolist()
        counts["confusion"] = self.confusions[self.decisive].tolist()
        return counts
