"""Supervised training of G and F_g on the labelled source, before round 1 (Algorithm 1, line 1)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from adaptation.augment import Randomisation, prepare, randomise
from adaptation.batches import shuffled_batches
from adaptation.networks import Network


def pretrain(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    standardise: bool,
    randomisation: Randomisation | None,
    backgrounds: Tensor | None,
    generator: torch.Generator,
    on_step: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Minimise cross-entropy on the source, in place, with AdamW, BatchNorm in training mode.

    Runs on the device of the network's parameters; pictures may be elsewhere. The optimiser, the schedule and
    all numbers are our choice: the paper's notes say cross-entropy alone.

    Parameters
    ----------
    network : Network
    images : Tensor, (N, 3, H, W), uint8
    labels : Tensor, (N,), int64
    steps : int
        Mini-batches; 0 leaves the network as it is.
    batch_size : int
        Pictures a mini-batch; a smaller source is taken whole.
    learning_rate : float
        Peak of the schedule, see `one_cycle`.
    weight_decay : float
    standardise : bool
        See `adaptation.augment.prepare`.
    randomisation : Randomisation or None
        How each mini-batch is changed at random; None leaves it plain.
    backgrounds : Tensor, (M, 3, H, W), uint8, or None
        Photo patches, which switch on the target-inspired part of the randomisation.
    generator : torch.Generator
        Source of the batches and of the randomisation.
    on_step : callable, optional
        Called with (steps done, steps) after every step.

    Returns
    -------
    dict
        `loss` and `accuracy` (in percent) on the last tenth of the mini-batches; empty for 0 steps.

    Raises
    ------
    ValueError
        If there are no images, or not as many labels.
    """
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(f"{len(images)} images and {len(labels)} labels given; as many of both are needed")
    if steps == 0:
        return {}
    device = next(network.parameters()).device
    if backgrounds is not None:
        backgrounds = backgrounds.to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
    annealing = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: one_cycle(step, steps))
    losses, hits = [], []
    network.train()
    for step, chosen in enumerate(shuffled_batches(len(images), batch_size, steps, generator), start=1):
        batch, batch_labels = images[chosen].to(device), labels[chosen].to(device)
        if randomisation is not None:
            batch = randomise(batch, generator, randomisation, backgrounds)
        logits = network(prepare(batch, standardise))
        loss = functional.cross_entropy(logits, batch_labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        annealing.step()
        losses.append(loss.detach())
        hits.append((logits.detach().argmax(dim=1) == batch_labels).float().mean())
        if on_step is not None:
            on_step(step, steps)
    network.eval()
    last = max(1, steps // 10)
    return {
        "loss": torch.stack(losses[-last:]).mean().item(),
        "accuracy": 100 * torch.stack(hits[-last:]).mean().item(),
    }


def one_cycle(step: int, steps: int) -> float:
    """The share of the peak rate in step 0 .. steps - 1: up over a quarter, then along a cosine to zero.

    After Smith and Topin 2018, without their cycle of the momentum; quarter and cosine are our choice.
    """
    done = (step + 0.5) / steps
    warm_up = 0.25
    if done < warm_up:
        return done / warm_up
    return (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up))) / 2
