"""Naive federated MCD: each client plays MCD's game on its target alone, the averages are fine-tuned on the source.

Saito et al., "Maximum classifier discrepancy for unsupervised domain adaptation", CVPR 2018, as papers on federated
adaptation compare with it: the clients have no source, so MCD's steps B and C run there without a source term, and
step A is the server's fine-tuning. The client's side is `clients.mcd`. No collapse guard: a collapse is the result.
"""

from flwr.app import ArrayRecord
from torch import Tensor, nn

from fmtda.adaptation.mcd import TwoHeads, train_second_classifier
from fmtda.adaptation.network import Network
from fmtda.adaptation.registry import build
from fmtda.protocol.records import from_record, to_record
from fmtda.protocol.seeds import seed_for
from fmtda.protocol.settings import Settings
from fmtda.strategies.fine_tuned_average import FineTunedAverage

SECOND_CLASSIFIER_SHARE = 0.25
"""Steps that the fresh second classifier is trained for, as a share of the pre-training's (our choice)."""


class FedMCD(FineTunedAverage):
    """G, F_1 and F_2 travel both ways.

    The pre-trained classifier becomes F_1. F_2 starts from weights of its own, by the seed, and learns the source with
    G frozen before the first round.
    """

    def __init__(self, settings: Settings, network: Network, source) -> None:
        fresh = build(settings.network, len(settings.class_names), settings.shape, seed_for(settings.seed, "F_2"))
        second_classifier = fresh.classifier.to(next(network.parameters()).device)
        super().__init__(settings, TwoHeads(network, second_classifier), source)

    def initial(self, arrays: ArrayRecord) -> ArrayRecord:
        settings, generator = self.settings, self.generator(0, "F_2")
        self.network.load_state_dict({**self.network.state_dict(), **from_record(arrays)})
        steps = max(1, round(SECOND_CLASSIFIER_SHARE * settings.pretrain_steps))
        batches = (self.source.draw(settings.pretrain_batch, generator) for _ in range(steps))
        train_second_classifier(self.network, batches, settings.pretrain_learning_rate, settings.weight_decay)
        return to_record(self.network.state_dict())

    def source_loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """MCD's step A."""
        return self.network.cross_entropy(self.network.feature_extractor(inputs), labels)

    def fine_tuned(self) -> list[nn.Parameter]:
        return list(self.network.parameters())
