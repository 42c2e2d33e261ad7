"""Fine-tunes the clients' average on the labelled source: a FedAvg whose server has the last word in a round.

What the peers that adapt G on the clients have in common. Their clients see no labels; without this step nothing would
hold the average to the task.

Our choice: the fine-tuning, whose BatchNorm keeps the statistics of the clients' domains.
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
from fmtda.protocol.settings import AdaptationSettings, Parameters
from fmtda.protocol.tables import setting
from fmtda.strategies.algorithm import LabelledSource
from fmtda.strategies.flower import ANY_SIZE, FlowerStrategy


class FineTunedParameters(Parameters):
    """Holds the parameters of those algorithms."""

    local_steps: int = setting(by_data="network-steps", ge=1, description="gradient steps of a client a round")
    local_batch: int = setting(by_data="network-batch", ge=2, description="examples in one of them")
    local_learning_rate: float = setting(by_data="network-learning-rate", gt=0, description="Adam step size of them")
    server_steps: int = setting(
        by_data="server-steps",
        server_only=True,
        stand_in=0,
        ge=0,
        description="fine-tuning steps of the server a round",
    )
    server_batch: int = setting(
        by_data="server-batch", server_only=True, stand_in=2, ge=2, description="source examples in one of them"
    )
    finetune_learning_rate: float = setting(1e-4, server_only=True, gt=0, description="AdamW step size of them")
    weight_decay: float = setting(5e-4, ge=0, description="AdamW's, on the server and on the clients")


class FineTunedAverage(FlowerStrategy):
    """Makes Flower's FedAvg, then `server-steps` steps of AdamW on source batches, by a fresh optimiser every round.

    Parameters
    ----------
    settings
        Steps, batch and step size of the fine-tuning.
    network
        The pre-trained network's architecture, extended by what else travels with it; its weights are overwritten.
    source
        The labelled source.
    """

    def __init__(self, settings: AdaptationSettings, network: Network, source: LabelledSource) -> None:
        super().__init__(FedAvg(**ANY_SIZE))
        self.settings = settings
        self.network = network
        self.source = source

    @abstractmethod
    def initial(self, arrays: ArrayRecord) -> ArrayRecord:
        """Add to the pre-trained network what this algorithm trains beside it.

        Everything that lives from round to round is in these arrays, and so in a checkpoint.
        """

    @abstractmethod
    def source_loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Compute what the fine-tuning minimises."""

    @abstractmethod
    def fine_tuned(self) -> list[nn.Parameter]:
        """List the parameters that it trains; the loss depends on each of them."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the uploads, weighted by their examples, and fine-tune the average. Without any, nothing changes."""
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is None or metrics is None:
            return None, None
        self.network.load_state_dict(from_record(arrays))
        metrics["fine-tuning-loss"] = self._fine_tune(self.generator(server_round, "fine-tuning"))
        return to_record(self.network.state_dict()), metrics

    def generator(self, server_round: int, purpose: str) -> torch.Generator:
        """Return the server's own random numbers for this round and purpose."""
        return generator_for(self.settings.seed, "server", server_round, purpose)

    def _fine_tune(self, generator: torch.Generator) -> float:
        """Returns the mean loss, 0 for no steps."""
        own, total = self.settings.own(FineTunedParameters), 0.0
        optimiser = torch.optim.AdamW(self.fine_tuned(), lr=own.finetune_learning_rate, weight_decay=own.weight_decay)
        self.network.eval()
        for _ in range(own.server_steps):
            loss = self.source_loss(*self.source.draw(own.server_batch, generator))
            descend(loss, optimiser)
            total += loss.item() / own.server_steps
        return total
