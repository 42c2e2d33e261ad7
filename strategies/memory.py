"""What strategies carry from round to round beside the model, out of them and back into them.

Flower's classes keep it in attributes and forget it when a run ends; with it in the checkpoint a resumed run equals
an unbroken one. Tried with Flower 1.41: `FedAvgM.momentum_vector` (a list in the order of the arrays), `FedOpt.m_t` and
`v_t` (by name), which `FedAdam` is a child of.
"""

from collections.abc import Mapping

import numpy as np
import torch
from flwr.serverapp.strategy import FedAvgM, Strategy
from flwr.serverapp.strategy.fedopt import FedOpt
from torch import Tensor

from fmtda.protocol.moments import parted
from fmtda.strategies.shared_moments import SharedMoments

MOMENTUM, MOMENTS = "strategy.momentum.", {"m_t": "strategy.first-moment.", "v_t": "strategy.second-moment."}


def remembered(strategy: Strategy) -> dict[str, Tensor]:
    """What a strategy has to be reminded of after a restart, named for a checkpoint; empty for one without memory."""
    if isinstance(strategy, FedAvgM) and strategy.momentum_vector is not None:
        return _named(MOMENTUM, dict(zip(strategy.current_arrays, strategy.momentum_vector, strict=True)))
    if isinstance(strategy, SharedMoments):
        return strategy.moments
    if isinstance(strategy, FedOpt):
        kept = {prefix: getattr(strategy, attribute) or {} for attribute, prefix in MOMENTS.items()}
        return {name: value for prefix, arrays in kept.items() for name, value in _named(prefix, arrays).items()}
    return {}


def remind(strategy: Strategy, state: Mapping[str, Tensor]) -> None:
    """Give a fresh strategy back what `remembered` found; other entries of the state are left alone."""
    if isinstance(strategy, FedAvgM):
        strategy.momentum_vector = list(_unnamed(MOMENTUM, state).values()) or None
    if isinstance(strategy, SharedMoments):
        _, strategy.moments = parted(state)
    if isinstance(strategy, FedOpt):
        for attribute, prefix in MOMENTS.items():
            setattr(strategy, attribute, _unnamed(prefix, state) or None)


def _named(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": torch.from_numpy(np.asarray(array)) for name, array in arrays.items()}


def _unnamed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value.numpy() for name, value in state.items() if name.startswith(prefix)}
