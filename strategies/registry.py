"""Finds the algorithms by name.

A new one is a file or folder of this room and a line here, or an entry point of another package in the group
``fmtda.strategies``; ``strategy=package.module:Class`` needs neither. The names alone cost no import.
"""

import warnings
from functools import cache
from typing import Any

from fmtda.protocol.printable import printable
from fmtda.protocol.registry import Registry, UnknownName, whole_class
from fmtda.protocol.tables import SettingsError

ADAPTING = {
    "source-only": "fmtda.strategies.source_only:SourceOnly",
    "adabn": "fmtda.strategies.adabn:AdaBN",
    "fedavg-self-training": "fmtda.strategies.fedavg_self_training:FedAvgSelfTraining",
    "fed-mcd": "fmtda.strategies.fed_mcd:FedMCD",
    "fed-dann": "fmtda.strategies.fed_dann:FedDANN",
    "dualadapt": "fmtda.strategies.dualadapt.client:DualAdapt",
}
"""Those of domain adaptation."""

GENERATING = {
    "fedavg": "fmtda.strategies.generative:GenerativeFedAvg",
    "fedprox": "fmtda.strategies.generative:GenerativeFedProx",
    "fedavgm": "fmtda.strategies.generative:GenerativeFedAvgM",
    "fedadam": "fmtda.strategies.generative:GenerativeFedAdam",
    "pooled-data": "fmtda.strategies.generative:Pooled",
}
"""Those of the generative workloads."""

ALGORITHMS: Registry[Any] = Registry("fmtda.strategies", {**ADAPTING, **GENERATING})

USUAL_STRATEGY = {"adaptation": "dualadapt", "generative": "fedavg"}
"""What `strategy` is by kind of workload where nobody says."""

POOLED = "pooled-data"
"""The reference that is no federation."""


def algorithm(name: str) -> Any:
    """Return the algorithm of that name, or that stands at that ``package.module:Class``.

    Raises
    ------
    SettingsError
        If there is none.
    """
    try:
        found = ALGORITHMS[name]
        from fmtda.strategies.algorithm import FederatedAlgorithm

        made = _made(whole_class(found, FederatedAlgorithm, "algorithm"))
    except UnknownName as error:
        raise SettingsError(f"strategy={printable(name)}: {error}") from None
    if ":" not in name and made.name != name:
        raise SettingsError(f"strategy={name}: its class calls itself {made.name}; register it by that name")
    return made


@cache
def _made(kind: Any) -> Any:
    """The one object of an algorithm's class, which holds no state."""
    return kind()


def algorithms(kind: str | None = None) -> list[Any]:
    """Return all registered algorithms, or those that serve a kind of workloads.

    Warns
    -----
    UserWarning
        Naming an algorithm of another package that can't be used; it is left out.
    """
    found = []
    for name in ALGORITHMS:
        try:
            found.append(algorithm(name))
        except SettingsError as error:
            if name in ADAPTING or name in GENERATING:
                raise
            warnings.warn(f"left out: {error}", stacklevel=2)
    return [each for each in found if kind in (None, each.kind)]
