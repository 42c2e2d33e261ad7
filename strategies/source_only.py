"""Holds source-only: the pre-trained model as it is. No client trains; the clients only evaluate."""

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fmtda.adaptation.network import Network
from fmtda.protocol.records import BadReply
from fmtda.protocol.settings import AdaptationSettings
from fmtda.strategies.algorithm import Algorithm, BenchmarkRow, FederatedStrategy, LabelledSource


class NobodyTrains(FederatedStrategy):
    """Asks for no training, and keeps the model as it is."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send no messages."""
        return []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Change nothing."""
        return None, None

    def check_upload(self, content: RecordDict) -> None:
        """Refuse whatever comes: nobody was asked."""
        raise BadReply("nobody trains in this run")


class SourceOnly(Algorithm):
    """This is the floor that every adaptation has to beat."""

    name = "source-only"
    title = "F_g as pre-trained; nobody adapts"
    rows = (BenchmarkRow(name, title),)

    def server(self, settings: AdaptationSettings, network: Network, source: LabelledSource) -> FederatedStrategy:
        return NobodyTrains()
