"""What leaves a client in training, and a client whose labels are others."""

import dataclasses

import torch

from fmtda.domains.examples import Examples
from fmtda.protocol.records import from_record
from fmtda.strategies.registry import algorithm


def upload(message, client):
    """All arrays that leave a client, by record and name."""
    content = algorithm(client.settings.strategy).train(message, client).content
    return {
        f"{record}.{name}": tensor
        for record, arrays in content.array_records.items()
        for name, tensor in from_record(arrays).items()
    }


def same_bits(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def relabelled(client, labels):
    """The same client with other labels on both parts: `labels` makes new ones out of old ones."""
    return dataclasses.replace(
        client,
        folder=client.folder / "relabelled",
        train=Examples(client.train.inputs, labels(client.train.labels)),
        test=Examples(client.test.inputs, labels(client.test.labels)),
    )


RELABELLINGS = {
    "permuted": lambda labels: labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))],
    "shifted": lambda labels: (labels + 1) % 10,
    "unknown": lambda labels: torch.full_like(labels, -1),
}
