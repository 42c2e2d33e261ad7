"""Two algorithms that are Flower's own but for what a client trains: FedProx, and FedAvg with clipping."""

from flwr.app import Message
from flwr.clientapp.mod import fixedclipping_mod
from flwr.serverapp.strategy import DifferentialPrivacyClientSideFixedClipping, FedAvg, FedProx

from fmtda.domains.client import Client
from fmtda.protocol.records import reply_to, to_record
from fmtda.protocol.settings import Parameters
from fmtda.protocol.tables import setting
from fmtda.strategies.algorithm import Algorithm
from fmtda.strategies.flower import ANY_SIZE, FlowerStrategy

STEP = 0.5
"""What every client adds to every weight, before anything holds it back."""


class MovingParameters(Parameters):
    """The parameters of both."""

    strength: float = setting(1.0, gt=0, description="FedProx's mu, or the largest norm of a client's update")


class Moving(Algorithm):
    """Every client takes a step of a known length from the model that it was sent."""

    parameters = MovingParameters

    def train(self, message: Message, client: Client) -> Message:
        network = self.received(message, client)
        mu = float(message.content.config_records["config"].get("proximal-mu", 0.0))
        moved = {
            name: weight + STEP / (1 + mu) if weight.is_floating_point() else weight
            for name, weight in network.state_dict().items()
        }
        return reply_to(message, client.name, {"num-examples": len(client.train)}, model=to_record(moved))


class Proximal(Moving):
    """FedProx: its weight comes with the message, under a key that is Flower's."""

    name = "proximal"
    title = "FedProx"

    def server(self, settings, network, source) -> FlowerStrategy:
        return FlowerStrategy(FedProx(**ANY_SIZE, proximal_mu=settings.own(MovingParameters).strength))


class Clipped(Moving):
    """FedAvg with central differential privacy, whose clipping Flower's modifier does on the client."""

    name = "clipped"
    title = "FedAvg, clipped on the client"
    mods = (fixedclipping_mod,)

    def server(self, settings, network, source) -> FlowerStrategy:
        own = settings.own(MovingParameters)
        private = DifferentialPrivacyClientSideFixedClipping(
            FedAvg(**ANY_SIZE), noise_multiplier=0.0, clipping_norm=own.strength, num_sampled_clients=settings.clients
        )
        return FlowerStrategy(private)
