"""Names Adam's memory as tensors beside a model's own: a checkpoint keeps them, and averaging sends them.

The names are ``optimiser.PARAMETER.step``, ``.exp_avg`` (the first moment) and ``.exp_avg_sq`` (the second).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

PREFIX = "optimiser."
STEP, FIRST, SECOND = "step", "exp_avg", "exp_avg_sq"
"""As torch's Adam calls them."""


def initial_moments(model: nn.Module) -> dict[str, Tensor]:
    """Make the memory of an Adam that has made no step: zeros."""
    state = {}
    for name, parameter in model.named_parameters():
        state[f"{PREFIX}{name}.{STEP}"] = torch.zeros(())
        for moment in (FIRST, SECOND):
            state[f"{PREFIX}{name}.{moment}"] = torch.zeros_like(parameter, device="cpu").detach()
    return state


def moments_of(optimiser: torch.optim.Adam, model: nn.Module) -> dict[str, Tensor]:
    """Take the memory of an Adam over the model's parameters, to the CPU; empty before its first step."""
    return {
        f"{PREFIX}{name}.{key}": value.detach().cpu()
        for name, parameter in model.named_parameters()
        for key, value in optimiser.state[parameter].items()
    }


def restore_moments(optimiser: torch.optim.Adam, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give an Adam over the model's parameters the memory found among the tensors; the others are left alone."""
    for name, parameter in model.named_parameters():
        prefix = f"{PREFIX}{name}."
        optimiser.state[parameter] = {
            key.removeprefix(prefix): value.to(parameter.device)
            for key, value in tensors.items()
            if key.startswith(prefix)
        }


def parted(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Part a model's own tensors from the moments among them."""
    moments = {name: value for name, value in tensors.items() if name.startswith(PREFIX)}
    return {name: value for name, value in tensors.items() if name not in moments}, moments


def is_second_moment(name: str) -> bool:
    """Say whether an array's values can't be negative."""
    return name.startswith(PREFIX) and name.endswith(f".{SECOND}")
