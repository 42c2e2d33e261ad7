"""Source-only: the pre-trained model as it is. No client trains; the clients only evaluate."""

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg


class SourceOnly(FedAvg):
    """Trains nothing, and evaluates as FedAvg does: the floor that every adaptation has to beat."""

    def __init__(self) -> None:
        super().__init__(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1, arrayrecord_key="model")

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """No messages: nobody trains."""
        return []
