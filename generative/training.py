"""Makes gradient steps on any model, and measures its loss on examples that it did not see.

One loop serves a client's round, the reference on pooled data, and whoever trains a model alone.

Our choice: of how many draws a held-out loss is the mean.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from fmtda.generative.model import GenerativeModel
from fmtda.protocol.settings import GenerativeSettings

HELD_OUT_DRAWS = 256
"""How many examples a held-out loss is the mean of at least; a smaller set counts several times, each time with other
noise."""

HELD_OUT_BATCH = 128
"""How many examples are in a forward pass of a held-out loss."""


class LossNotFinite(ArithmeticError):
    """This is raised where training has gone astray; the message says at which step and what helps."""


def descend(
    model: GenerativeModel,
    optimiser: torch.optim.Optimizer,
    examples: Tensor,
    batches: Iterable[Tensor],
    sizes: Iterable[float],
    generator: torch.Generator,
    *,
    gradient_clip: float = 0.0,
    proximal_mu: float = 0.0,
    on_step: Callable[[int], None] = lambda done: None,
) -> float:
    """Descend the model's loss, in place.

    Parameters
    ----------
    model : GenerativeModel
    optimiser : torch.optim.Optimizer
        Over the model's parameters.
    examples : Tensor, (N, ...)
        As the model takes them, on the CPU.
    batches : iterable of Tensor, int64
        Which examples each step takes; as many steps as there are of them.
    sizes : iterable of float
        The learning rate of each step.
    generator : torch.Generator
        Source of what the loss draws.
    gradient_clip : float
        Longer gradients, over all parameters, are shortened to this norm; 0 leaves them.
    proximal_mu : float
        Weight of FedProx's term mu / 2 |w - w_0|^2 in the loss, w_0 being the parameters at the start (Li et al. 2020,
        "Federated optimization in heterogeneous networks").
    on_step : callable
        Called with 1 after each step.

    Returns
    -------
    float
        Mean of the losses, without the proximal term.

    Raises
    ------
    LossNotFinite
        At the first loss that is NaN or infinite; the model keeps the parameters of the step before.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    device = parameters[0].device
    start = [parameter.detach().clone() for parameter in parameters] if proximal_mu else []
    losses = []
    model.train()
    for step, (chosen, size) in enumerate(zip(batches, sizes, strict=True), start=1):
        loss = model.loss(examples[chosen].to(device), generator)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise LossNotFinite(f"the loss is {losses[-1]} at step {step}; take a smaller training.learning-rate")
        if proximal_mu:
            distance = sum((now - before).square().sum() for now, before in zip(parameters, start, strict=True))
            loss = loss + proximal_mu / 2 * distance
        for group in optimiser.param_groups:
            group["lr"] = size
        optimiser.zero_grad()
        loss.backward()
        if gradient_clip:
            torch.nn.utils.clip_grad_norm_(parameters, gradient_clip)
        optimiser.step()
        on_step(1)
    return sum(losses) / len(losses)


def step_size(step: int, *, peak: float, schedule: str, warm_up: int, steps: int) -> float:
    """Compute the learning rate of a step of the whole run, wherever it is made.

    Parameters
    ----------
    step : int
        0 for the run's first.
    peak : float
        The largest.
    schedule : {"constant", "cosine"}
        What follows the warm-up: the peak, or half a cosine that would reach zero after the last step.
    warm_up : int
        Steps over which it rises linearly to the peak.
    steps : int
        Of the whole run.
    """
    rising = min(1.0, (step + 1) / warm_up) if warm_up else 1.0
    if schedule == "constant" or step < warm_up:
        return peak * rising
    return peak * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))) / 2


def step_sizes(settings: GenerativeSettings, server_round: int) -> list[float]:
    """List the learning rates of a round's steps."""
    training = settings.training
    first = (server_round - 1) * training.steps
    return [
        step_size(
            step,
            peak=training.learning_rate,
            schedule=training.schedule,
            warm_up=training.warm_up_steps,
            steps=settings.gradient_steps,
        )
        for step in range(first, first + training.steps)
    ]


@torch.no_grad()
def held_out_loss(model: GenerativeModel, examples: Tensor, generator: torch.Generator) -> float:
    """Compute the loss on other examples: with equal generators it differs by the model alone.

    Parameters
    ----------
    model : GenerativeModel
    examples : Tensor, (N, ...)
        At least one.
    generator : torch.Generator
        Source of what the loss draws.
    """
    model.eval()
    device = next(model.parameters()).device
    total, count = 0.0, 0
    for _ in range(-(-HELD_OUT_DRAWS // len(examples))):
        for batch in examples.split(HELD_OUT_BATCH):
            total += model.loss(batch.to(device), generator).item() * len(batch)
            count += len(batch)
    return total / count
