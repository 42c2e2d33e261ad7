"""Federated DANN: the server sends source features, the clients train G to make theirs indistinguishable from these.

Ganin et al., "Domain-adversarial training of neural networks", JMLR 2016. A client has no source, so the server sends
it the features of one source batch a local step: (steps, rows, D) floats, which count among the bytes. G and the
discriminator are averaged, and the average is fine-tuned on the source. The client's side is
`clients.domain_adversarial`.
"""

from collections.abc import Iterable

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from torch import Tensor, nn
from torch.nn import functional

from fmtda.adaptation.dann import Discriminated, Discriminator
from fmtda.adaptation.network import Network
from fmtda.protocol.records import from_record, to_record
from fmtda.protocol.seeds import seed_for
from fmtda.protocol.settings import Settings
from fmtda.strategies.fine_tuned_average import FineTunedAverage

DISCRIMINATOR = "discriminator."
"""How the names of its arrays begin."""


class FedDANN(FineTunedAverage):
    """G, F and the discriminator travel both ways; to predict, clients get G and F alone."""

    def __init__(self, settings: Settings, network: Network, source) -> None:
        discriminator = Discriminator.seeded(network.feature_size, seed_for(settings.seed, "discriminator"))
        device = next(network.parameters()).device
        super().__init__(settings, Discriminated(network, discriminator.to(device)), source)

    def initial(self, arrays: ArrayRecord) -> ArrayRecord:
        return to_record({**self.network.state_dict(), **from_record(arrays)})

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Broadcast the model and the source features of every local step, the same to all clients."""
        self.network.load_state_dict(from_record(arrays))
        features = to_record({"features": self._source_features(self.generator(server_round, "source features"))})
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for message in messages:
            message.content["source_features"] = features
        return messages

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send what predicts."""
        network = ArrayRecord({name: array for name, array in arrays.items() if not name.startswith(DISCRIMINATOR)})
        return super().configure_evaluate(server_round, network, config, grid)

    def source_loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy."""
        return functional.cross_entropy(self.network(inputs), labels, ignore_index=-1)

    def fine_tuned(self) -> list[nn.Parameter]:
        return [*self.network.feature_extractor.parameters(), *self.network.classifier.parameters()]

    @torch.no_grad()
    def _source_features(self, generator: torch.Generator) -> Tensor:
        """(steps, rows, D): a row an example, or one of `places` places of a picture."""
        settings, network = self.settings, self.network.eval()
        batches = (self.source.draw(settings.local_batch, generator)[0] for _ in range(settings.local_steps))
        return torch.stack([network.features(inputs, settings.places, generator) for inputs in batches])
