"""Holds naive federated MCD: each client plays MCD's game on its target, averages are fine-tuned on the source.

Saito et al., "Maximum classifier discrepancy for unsupervised domain adaptation", CVPR 2018, as papers on federated
adaptation compare with it: the clients have no source, so MCD's steps B and C run there without a source term, and
step A is the server's fine-tuning. No collapse guard: a collapse is the result.

Our choice: how long the fresh second classifier is trained.
"""

import copy
import time
from statistics import fmean
from typing import cast

from flwr.app import ArrayRecord, Message
from torch import Tensor, nn

from fmtda.adaptation.batches import shuffled_batches
from fmtda.adaptation.mcd import MCD, TwoHeads, train_second_classifier
from fmtda.adaptation.network import Network
from fmtda.adaptation.registry import build
from fmtda.domains.client import Client
from fmtda.protocol.metrics import number
from fmtda.protocol.records import from_record, reply_to, to_record
from fmtda.protocol.seeds import seed_for
from fmtda.protocol.settings import AdaptationSettings
from fmtda.strategies.algorithm import Algorithm, BenchmarkRow, FederatedStrategy, LabelledSource
from fmtda.strategies.fine_tuned_average import FineTunedAverage, FineTunedParameters

SECOND_CLASSIFIER_SHARE = 0.25
"""Steps that the fresh second classifier is trained for, as a share of the pre-training's."""


class FedMCD(Algorithm):
    """Makes MCD's steps B, without its source term, and C on the clients."""

    name = "fed-mcd"
    title = "naive federated MCD: clients without a source term"
    parameters = FineTunedParameters
    rows = (BenchmarkRow(name, title),)
    answers = {"train": (number("discrepancy-maximised"), number("discrepancy"))}

    def server(self, settings: AdaptationSettings, network: Network, source: LabelledSource) -> FederatedStrategy:
        return FedMCDServer(settings, network, source)

    def architecture(self, network: Network) -> Network:
        """Add a second classifier; the mean of both predicts."""
        return TwoHeads(network, copy.deepcopy(network.classifier))

    def train(self, message: Message, client: Client) -> Message:
        """Make `fed-mcd.local-steps` steps; BatchNorm in training mode, as in MCD's official code."""
        began = time.perf_counter()
        own = client.settings.own(FineTunedParameters)
        network = cast(TwoHeads, self.received(message, client)).requires_grad_(True)
        inputs = client.inputs(client.train)
        game = MCD(network, own.local_learning_rate, own.weight_decay)
        maximised, minimised = [], []
        generator = client.generator("mini-batches")
        for chosen in shuffled_batches(len(inputs), own.local_batch, own.local_steps, generator):
            target = inputs[chosen]
            network.train(len(target) > 1)  # one example has no variance for BatchNorm to go by
            maximised.append(game.separate(target))
            minimised.append(game.agree(target))
        metrics = {
            "num-examples": len(inputs),
            "seconds": time.perf_counter() - began,
            "discrepancy-maximised": fmean(maximised),
            "discrepancy": fmean(minimised),
        }
        return reply_to(message, client.name, metrics, model=to_record(network.state_dict()))


class FedMCDServer(FineTunedAverage):
    """Averages and fine-tunes G, F_1 and F_2.

    The pre-trained classifier becomes F_1. F_2 starts from weights of its own, by the seed, and learns the source with
    G frozen before the first round.
    """

    network: TwoHeads

    def __init__(self, settings: AdaptationSettings, network: Network, source: LabelledSource) -> None:
        fresh = build(settings.network.name, len(settings.class_names), settings.shape, seed_for(settings.seed, "F_2"))
        second_classifier = fresh.classifier.to(next(network.parameters()).device)
        super().__init__(settings, TwoHeads(network, second_classifier), source)

    def initial(self, arrays: ArrayRecord) -> ArrayRecord:
        pretraining, generator = self.settings.pretraining, self.generator(0, "F_2")
        self.network.load_state_dict({**self.network.state_dict(), **from_record(arrays)})
        steps = max(1, round(SECOND_CLASSIFIER_SHARE * pretraining.steps))
        batches = (self.source.draw(pretraining.batch, generator) for _ in range(steps))
        train_second_classifier(self.network, batches, pretraining.learning_rate, pretraining.weight_decay)
        return to_record(self.network.state_dict())

    def source_loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of MCD's step A."""
        return self.network.cross_entropy(self.network.feature_extractor(inputs), labels)

    def fine_tuned(self) -> list[nn.Parameter]:
        return list(self.network.parameters())
