"""An algorithm: clients move BatchNorm statistics towards their own, and the server averages the models."""

import time

from flwr.app import Message
from flwr.serverapp.strategy import FedAvg

from fmtda.adaptation.batch_norm import reestimate
from fmtda.domains.client import Client
from fmtda.protocol.records import reply_to, to_record
from fmtda.protocol.settings import Parameters
from fmtda.protocol.tables import setting
from fmtda.strategies.algorithm import Algorithm, BenchmarkRow, FederatedStrategy
from fmtda.strategies.flower import ANY_SIZE, FlowerStrategy


class AveragedStatisticsParameters(Parameters):
    """Its table of settings."""

    share: float = setting(0.5, ge=0, le=1, description="weight of a client's own statistics before they are averaged")


class AveragedStatistics(Algorithm):
    """Nothing is learned by gradients."""

    name = "averaged-statistics"
    title = "BatchNorm statistics averaged over the clients"
    parameters = AveragedStatisticsParameters
    rows = (BenchmarkRow(name, title),)

    def server(self, settings, network, source) -> FederatedStrategy:
        return FlowerStrategy(FedAvg(**ANY_SIZE))

    def train(self, message: Message, client: Client) -> Message:
        began = time.perf_counter()
        network = self.received(message, client)
        share = client.settings.own(AveragedStatisticsParameters).share
        reestimate(network.feature_extractor, client.inputs(client.train), share)
        metrics = {"num-examples": len(client.train), "seconds": time.perf_counter() - began}
        return reply_to(message, client.name, metrics, model=to_record(network.state_dict()))
