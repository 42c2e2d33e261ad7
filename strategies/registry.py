"""The strategies by name; a new one is a file beside this and a line here."""

from collections.abc import Callable

from flwr.serverapp.strategy import Strategy

from fmtda.adaptation.network import Network
from fmtda.protocol.settings import Settings, SettingsError
from fmtda.strategies.adabn import AdaBN
from fmtda.strategies.dual_adapt import DualAdapt
from fmtda.strategies.fed_dann import FedDANN
from fmtda.strategies.fed_mcd import FedMCD
from fmtda.strategies.fedavg_self_training import FedAvgSelfTraining
from fmtda.strategies.source_only import SourceOnly

STRATEGIES: dict[str, Callable[[Settings, Network, object], Strategy]] = {
    "dualadapt": DualAdapt,
    "source-only": lambda settings, network, source: SourceOnly(),
    "adabn": lambda settings, network, source: AdaBN(),
    "fedavg-self-training": lambda settings, network, source: FedAvgSelfTraining(),
    "fed-mcd": FedMCD,
    "fed-dann": FedDANN,
}


def check_strategy(name: str) -> None:
    """Refuse a name that no strategy has.

    Raises
    ------
    SettingsError
        Naming it and those there are.
    """
    if name not in STRATEGIES:
        raise SettingsError(f"strategy={name}: no such strategy; allowed are {', '.join(STRATEGIES)}")
