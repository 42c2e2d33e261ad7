"""The strategies of the generative workloads by name: Flower's own classes, for federations of any size.

FedAvg: McMahan et al., AISTATS 2017. FedProx: Li et al., MLSys 2020; its term is added on the clients
(`generative.training`). FedAvgM: Hsu et al. 2019. FedAdam: Reddi et al., ICLR 2021. Where the clients' moments are
averaged too, FedAvg and FedProx are those of `strategies.shared_moments`.
"""

from collections.abc import Callable

from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, FedProx, Strategy
from torch import nn

from fmtda.protocol.generative_settings import GenerativeSettings
from fmtda.strategies.shared_moments import ProximalSharedMoments, SharedMoments


def strategy_for(settings: GenerativeSettings, model: nn.Module) -> Strategy:
    """The strategy of a run, for clients that train this model."""
    if settings.local_moments == "averaged":
        return SHARING_STRATEGIES[settings.strategy](settings, model)
    return GENERATIVE_STRATEGIES[settings.strategy](settings)


ANY_SIZE = {"min_train_nodes": 1, "min_evaluate_nodes": 1, "min_available_nodes": 1, "arrayrecord_key": "model"}

GENERATIVE_STRATEGIES: dict[str, Callable[[GenerativeSettings], Strategy]] = {
    "fedavg": lambda settings: FedAvg(**ANY_SIZE),
    "fedprox": lambda settings: FedProx(**ANY_SIZE, proximal_mu=settings.proximal_mu),
    "fedavgm": lambda settings: FedAvgM(
        **ANY_SIZE, server_learning_rate=settings.server_learning_rate, server_momentum=settings.server_momentum
    ),
    "fedadam": lambda settings: FedAdam(
        **ANY_SIZE,
        eta=settings.server_learning_rate,
        beta_1=settings.server_momentum,
        beta_2=settings.server_beta2,
        tau=settings.server_tau,
    ),
}

SHARING_STRATEGIES: dict[str, Callable[[GenerativeSettings, nn.Module], Strategy]] = {
    "fedavg": lambda settings, model: SharedMoments(model=model, **ANY_SIZE),
    "fedprox": lambda settings, model: ProximalSharedMoments(model=model, **ANY_SIZE, proximal_mu=settings.proximal_mu),
}
"""Those that can average the clients' moments with the model."""
