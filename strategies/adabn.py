"""Holds AdaBN: no client trains; each predicts by F_g on G with BatchNorm statistics that are wholly its own.

Li et al., "Revisiting batch normalization for practical domain adaptation", 2016.
"""

from flwr.app import Message

from fmtda.adaptation.batch_norm import batch_norm_state, load_batch_norm_statistics, reestimate
from fmtda.adaptation.network import Network
from fmtda.adaptation.predictor import Predictor
from fmtda.domains.client import Client
from fmtda.protocol.settings import AdaptationSettings
from fmtda.strategies.algorithm import Algorithm, BenchmarkRow, FederatedStrategy, LabelledSource
from fmtda.strategies.source_only import NobodyTrains

STATISTICS = "localised.safetensors"
"""In the client's folder: G's BatchNorm statistics, scales and shifts."""


class AdaBN(Algorithm):
    """Gives each client its own BatchNorm statistics; on the server it is the same as source-only."""

    name = "adabn"
    title = "BatchNorm statistics of each client's own (Li et al. 2016)"
    rows = (BenchmarkRow(name, title),)
    keeps_local_part = True

    def server(self, settings: AdaptationSettings, network: Network, source: LabelledSource) -> FederatedStrategy:
        return NobodyTrains()

    def adapt(self, message: Message, client: Client) -> Predictor:
        """Re-estimate the statistics on the client's training examples, and keep them.

        A client with a single example, which has no variance, keeps the server's statistics.
        """
        network = self.received(message, client)
        inputs = client.inputs(client.train)
        if len(inputs) > 1:
            reestimate(network, inputs, client_weight=1.0)
        client.keep(STATISTICS, **{"batch-norm": batch_norm_state(network.feature_extractor)})
        return Predictor({"global": network})

    def predictor(self, network: Network, client: Client) -> Predictor:
        kept = client.kept(STATISTICS)
        if kept is None:
            return Predictor(
                {"global": network}, parts=f"F_g alone: nothing of {client.name} is here; name its folder with --local"
            )
        load_batch_norm_statistics(network.feature_extractor, kept.get("batch-norm", {}))
        return Predictor({"global": network}, parts=f"F_g with the BatchNorm statistics of {client.name}")
