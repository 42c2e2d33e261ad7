"""Makes one gradient step on chosen parameters, so that steps which take turns can't touch the other parts."""

import torch
from torch import Tensor


def descend(loss: Tensor, *optimisers: torch.optim.Optimizer) -> None:
    """Make one step of each optimiser down the gradient of `loss`.

    Gradients are computed for the optimisers' own parameters alone, all before any of them moves, and none is left
    over for a later step.

    Parameters
    ----------
    loss : Tensor, scalar
        Depends on every parameter of every optimiser.
    """
    parameters = [p for optimiser in optimisers for group in optimiser.param_groups for p in group["params"]]
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    for optimiser in optimisers:
        optimiser.step()
        optimiser.zero_grad()
