"""FedAvg whose server has the last word in a round: it fine-tunes the clients' average on its labelled source.

What the peers that adapt G on the clients have in common. Their clients see no labels; without this step nothing would
hold the average to the task.
"""

from abc import abstractmethod
from collections.abc import Iterable

import torch
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAvg
from torch import Tensor, nn

from fmtda.adaptation.gradient_step import descend
from fmtda.adaptation.network import Network
from fmtda.protocol.records import from_record, to_record
from fmtda.protocol.seeds import generator_for
from fmtda.protocol.settings import Settings


class FineTunedAverage(FedAvg):
    """Flower's FedAvg, then `server-steps` steps of AdamW on source batches; the optimiser starts afresh every round.

    Parameters
    ----------
    settings
        Steps, batch and step size of the fine-tuning.
    network
        The pre-trained network's architecture, extended by what else travels with it; its weights are overwritten.
    source
        The labelled source: `server.source.Source`, or anything with its `draw`.
    """

    def __init__(self, settings: Settings, network: Network, source) -> None:
        super().__init__(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1, arrayrecord_key="model")
        self.settings = settings
        self.network = network
        self.source = source

    @abstractmethod
    def initial(self, arrays: ArrayRecord) -> ArrayRecord:
        """The pre-trained network with what this strategy adds to it; called once, before the first round.

        Everything that lives from round to round is in these arrays, and so in a checkpoint.
        """

    @abstractmethod
    def source_loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """What the fine-tuning minimises."""

    @abstractmethod
    def fine_tuned(self) -> list[nn.Parameter]:
        """Over which parameters; the loss depends on each of them."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the uploads, weighted by their examples, and fine-tune the average. Without any, nothing changes."""
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is None:
            return None, None
        self.network.load_state_dict(from_record(arrays))
        metrics["fine-tuning-loss"] = self._fine_tune(self.generator(server_round, "fine-tuning"))
        return to_record(self.network.state_dict()), metrics

    def generator(self, server_round: int, purpose: str) -> torch.Generator:
        """The server's own random numbers for this round and purpose."""
        return generator_for(self.settings.seed, "server", server_round, purpose)

    def _fine_tune(self, generator: torch.Generator) -> float:
        """Returns the mean loss, 0 for no steps."""
        settings, total = self.settings, 0.0
        optimiser = torch.optim.AdamW(
            self.fine_tuned(), lr=settings.finetune_learning_rate, weight_decay=settings.weight_decay
        )
        self.network.eval()  # BatchNorm keeps the statistics of the clients' domains (our choice)
        for _ in range(settings.server_steps):
            loss = self.source_loss(*self.source.draw(settings.server_batch, generator))
            descend(loss, optimiser)
            total += loss.item() / settings.server_steps
        return total
