"""What a client shows of itself: features and pictures of a few test examples, if its owner has agreed to that.

In simulation every client agrees: its data is on the machine of whoever runs it. In deployment nobody does, unless the
node config says ``share-examples=true``. The server asks those alone that said so when they joined, and a client that
did not agree refuses whoever asks.
"""

import torch
from flwr.app import Message
from torch import Tensor

from fmtda.adaptation.heads import by_head, decisive
from fmtda.adaptation.inputs import Inputs
from fmtda.adaptation.labelled_features import labelled_rows
from fmtda.adaptation.network import Network
from fmtda.adaptation.registry import AUGMENTATIONS
from fmtda.clients import adabn, adaptation, mcd
from fmtda.clients.identity import Client
from fmtda.clients.network import inputs_of, loaded_network, received_network
from fmtda.domains.examples import DataError, Examples
from fmtda.domains.registry import family
from fmtda.protocol.illustrations import PICTURES, PICTURES_WITH_MAPS, POINTS
from fmtda.protocol.records import from_record, reply_to, to_record
from fmtda.protocol.runtime import choose_device

PREDICTORS = {
    "dualadapt": adaptation.predicting_networks,
    "adabn": lambda message, client: {"global": adabn.own_network(message, client)},
    "fed-mcd": lambda message, client: {"global": mcd.both_heads(message, client)},
}
"""The networks that predict on a client, by the names of `adaptation.heads.by_head`; F_g as it came for the others."""


def illustrate(message: Message, client: Client) -> Message:
    """Features before and after adaptation, and pictures with their predictions, of test examples drawn by the seed.

    Raises
    ------
    DataError
        If the client's owner has not agreed to share examples.
    """
    if not client.shares_examples:
        raise DataError(f"{client.name} shares no examples; its owner may, by share-examples=true in the node config")
    settings = client.settings
    before = loaded_network(from_record(message.content["pretrained"]), settings).requires_grad_(False).eval()
    received = PREDICTORS.get(settings.strategy, lambda *given: {"global": received_network(*given)})
    after = received(message, client)
    order = torch.randperm(len(client.test), generator=client.generator("illustration"))
    points = client.test.select(order[:POINTS])
    arrays = {}
    for name, network in {"before": before, "after": list(after.values())[-1]}.items():
        rows = labelled_rows(
            network, inputs_of(client, points), points.labels[:], POINTS, client.generator("places of a map")
        )
        arrays[f"features-{name}"], arrays["classes"] = rows[0], rows[1].short()
    if len(client.test.inputs.shape) == 4:
        count = PICTURES_WITH_MAPS if family(settings.data).segmentation else PICTURES
        shown = client.test.select(order[:count])
        arrays |= {"pictures": shown.inputs[:], "labels": shown.labels[:].short()}
        for name, networks in {"before": {"global": before}, "after": after}.items():
            predicted, confidence = _predicted(networks, shown, client)
            arrays |= {f"predicted-{name}": predicted.short(), f"confidence-{name}": confidence.float()}
    metrics = {"num-examples": len(points)}
    return reply_to(message, client.name, metrics, illustration=to_record(arrays))


@torch.no_grad()
def _predicted(networks: dict[str, Network], shown: Examples, client: Client) -> tuple[Tensor, Tensor]:
    """The likeliest class of each example, or pixel, and its probability, the mean over an example's pixels."""
    settings = client.settings
    augmentation = AUGMENTATIONS[family(settings.data).kind]
    inputs = Inputs(shown.inputs, augmentation, settings.standardise, choose_device(settings.device))[:]
    heads = by_head({name: network(inputs).softmax(dim=1) for name, network in networks.items()}, settings.inference)
    confidence, predicted = decisive(heads, settings.inference).cpu().max(dim=1)
    return predicted, confidence.flatten(1).mean(dim=1) if confidence.ndim > 1 else confidence
