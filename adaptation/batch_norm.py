"""Treats BatchNorm as a domain's own part: re-estimates statistics on a client's inputs, and says what it keeps."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fmtda.adaptation.batches import forward_slices
from fmtda.adaptation.inputs import Inputs

STATISTICS = ("running_mean", "running_var")


@torch.no_grad()
def reestimate(feature_extractor: nn.Module, inputs: Inputs | Tensor, client_weight: float) -> None:
    """Re-estimate the running statistics of every BatchNorm layer on unlabelled inputs, in place.

    Each layer sees what the layers before it give under the new statistics of the same batch (AdaBN, Li et al. 2016);
    parameters stay as they are. The result is a mean of the new statistics and those that the module came with, the
    server's: ``w client + (1 - w) server``. Mixing the two is in Schneider et al. 2020 and You et al. 2021; the weight
    is the caller's choice.

    Parameters
    ----------
    feature_extractor : nn.Module
    inputs : Inputs or Tensor, (n, ...)
        The client's prepared inputs, float32. They pass in batches of nearly equal size, whose statistics are averaged
        by size.
    client_weight : float
        w in [0, 1]; 1 forgets the server's statistics.

    Raises
    ------
    ValueError
        If there are fewer than two inputs, which have no variance, or `client_weight` is outside [0, 1].
    """
    if len(inputs) < 2:
        raise ValueError(f"{len(inputs)} inputs given; BatchNorm statistics need two at least")
    if not 0 <= client_weight <= 1:
        raise ValueError(f"client_weight={client_weight} must be in [0, 1]")
    layers = [layer for layer in feature_extractor.modules() if isinstance(layer, _BatchNorm)]
    server = [tuple(statistic.clone() for statistic in _statistics(layer)) for layer in layers]
    settings = [(layer.training, layer.momentum) for layer in layers]
    seen = 0
    for layer in layers:
        layer.train()
    for part in forward_slices(inputs):
        batch = inputs[part]
        seen += len(batch)
        for layer in layers:
            layer.momentum = len(batch) / seen
        feature_extractor(batch)
    for layer, before, (training, momentum) in zip(layers, server, settings, strict=True):
        for old, new in zip(before, _statistics(layer), strict=True):
            new.copy_(old.lerp(new, client_weight))
        layer.training, layer.momentum = training, momentum


def batch_norm_state(module: nn.Module) -> dict[str, Tensor]:
    """Copy the statistics, scales and shifts of every BatchNorm layer, by their names in the state dict.

    Together they are a client's local part of the network (FedBN, Li et al. 2021).
    """
    state = module.state_dict()
    return {name: state[name].detach().clone() for name in _batch_norm_names(module)}


@torch.no_grad()
def load_batch_norm_state(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Set what `batch_norm_state` returned.

    Raises
    ------
    ValueError
        If names or shapes are not those of the module's BatchNorm layers.
    """
    own = module.state_dict()
    names = _batch_norm_names(module)
    if set(state) != set(names):
        different = ", ".join(sorted(set(state) ^ set(names)))
        raise ValueError(f"the BatchNorm state does not fit the network; only one of the two has {different}")
    for name in names:
        if state[name].shape != own[name].shape:
            raise ValueError(f"{name} has shape {tuple(state[name].shape)}, not {tuple(own[name].shape)}")
    for name in names:
        own[name].copy_(state[name])


def load_batch_norm_statistics(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Set the running statistics of what `batch_norm_state` returned, and leave scales and shifts as they are.

    Raises
    ------
    ValueError
        As `load_batch_norm_state`.
    """
    statistics = {name: value for name, value in state.items() if name.endswith(STATISTICS)}
    load_batch_norm_state(module, {**batch_norm_state(module), **statistics})


def _statistics(layer: _BatchNorm) -> tuple[Tensor, Tensor]:
    """The running mean and variance themselves, not copies."""
    if layer.running_mean is None or layer.running_var is None:
        raise ValueError(f"{layer} keeps no running statistics, so there are none to re-estimate")
    return layer.running_mean, layer.running_var


def _batch_norm_names(module: nn.Module) -> list[str]:
    """State dict names of statistics, scales and shifts, in the module's order."""
    return [
        f"{prefix}.{part}" if prefix else part
        for prefix, layer in module.named_modules()
        if isinstance(layer, _BatchNorm)
        for part in ("weight", "bias", *STATISTICS)
    ]
