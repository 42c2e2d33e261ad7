"""Shows features and pictures of a few of a client's test examples, if its owner has agreed to that.

In simulation every client agrees: its data is on the machine of whoever runs it. In deployment nobody does, unless the
node config says ``share-examples=true``. The server asks those alone that said so when they joined, and a client that
did not agree refuses whoever asks.
"""

import torch
from flwr.app import Message
from torch import Tensor

from fmtda.adaptation.labelled_features import labelled_rows
from fmtda.adaptation.predictor import Predictor
from fmtda.adaptation.registry import empty_network, filled
from fmtda.domains.client import Client
from fmtda.domains.examples import DataError, Examples
from fmtda.domains.registry import family
from fmtda.protocol.illustration import PICTURES, PICTURES_WITH_MAPS, POINTS
from fmtda.protocol.records import reply_to, to_record
from fmtda.strategies.algorithm import Algorithm, adaptation, received


def illustrate(message: Message, client: Client, algorithm: Algorithm) -> Message:
    """Answer with features before and after adaptation, and pictures with predictions, of examples drawn by the seed.

    Raises
    ------
    DataError
        If the client's owner has not agreed to share examples.
    """
    if not client.shares_examples:
        raise DataError(f"{client.name} shares no examples; its owner may, by share-examples=true in the node config")
    settings = adaptation(client)
    pretrained = filled(empty_network(settings), received(message, "pretrained"), settings.device)
    before = Predictor({"global": pretrained})
    after = algorithm.predictor(algorithm.received(message, client), client)
    order = torch.randperm(len(client.test), generator=client.generator("illustration"))
    points = client.test.select(order[:POINTS])
    arrays = {}
    for name, predictor in {"before": before, "after": after}.items():
        network = list(predictor.networks.values())[-1]
        rows = labelled_rows(
            network, client.inputs(points), points.labels[:], POINTS, client.generator("places of a map")
        )
        arrays[f"features-{name}"], arrays["classes"] = rows[0], rows[1].short()
    if len(client.test.inputs.shape) == 4:
        count = PICTURES_WITH_MAPS if family(settings.data.name).segmentation else PICTURES
        shown = client.test.select(order[:count])
        arrays |= {"pictures": shown.inputs[:], "labels": shown.labels[:].short()}
        for name, predictor in {"before": before, "after": after}.items():
            predicted, confidence = _predicted(predictor, shown, client)
            arrays |= {f"predicted-{name}": predicted.short(), f"confidence-{name}": confidence.float()}
    metrics = {"num-examples": len(points)}
    return reply_to(message, client.name, metrics, illustration=to_record(arrays))


@torch.no_grad()
def _predicted(predictor: Predictor, shown: Examples, client: Client) -> tuple[Tensor, Tensor]:
    """The likeliest class of each example, or pixel, and its probability, the mean over an example's pixels."""
    confidence, predicted = predictor(client.inputs(shown)[:]).cpu().max(dim=1)
    return predicted, confidence.flatten(1).mean(dim=1) if confidence.ndim > 1 else confidence
