"""Trains the local classifier F_l by DP-SGD: what it learns says little of any single example.

The loss is Eq. 5, as in `adaptation.losses`. Each step takes every example with the same probability, by a secret draw,
cuts each example's gradient to a norm of `clip` at most, adds them up, and adds Gaussian noise with a standard
deviation of `noise` times `clip` to every entry. What Adam makes of that needs no further protection. What is given
away in a step is the sampled Gaussian mechanism, which `adaptation.privacy_account` counts.

Source: Abadi et al., "Deep learning with differential privacy", CCS 2016.

Our choice: Adam in the place of plain descent; the sum divided by the expected number of examples, not by the drawn
one, which is secret; and how many gradients are in memory at once.

Shapes: N examples, B drawn ones, D features, C classes.
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fmtda.adaptation.losses import local_classifier_loss
from fmtda.adaptation.privacy_noise import Uniforms, normal

GRADIENT_VALUES = 2**24
"""The most numbers in the gradients that are in memory at once; one example's always are."""

Gradients = dict[str, Tensor]
"""By the parameter's name; of every example with a leading axis B."""


def train_privately(
    classifier: nn.Module,
    features: Tensor,
    global_logits: Tensor,
    weights: Tensor,
    *,
    discrepancy_weight: float,
    steps: int,
    batch_size: int,
    learning_rate: float,
    clip: float,
    noise: float,
    uniforms: Uniforms,
) -> None:
    """Minimise Eq. 5 over a classifier by DP-SGD with Adam, in place.

    Parameters
    ----------
    classifier : nn.Module
        F_l as it starts, in evaluation mode: a BatchNorm in it keeps its statistics, which would else mix examples.
    features : Tensor, shape (N, D)
        Each row must come from its own example alone.
    global_logits : Tensor, shape (N, C)
        F_g(z).
    weights : Tensor, shape (N,)
        w_S(x) in [0, 1].
    discrepancy_weight : float
        lambda of Eq. 5.
    steps, batch_size : int
        How many steps, and how many examples one of them takes on average.
    learning_rate : float
        Adam's.
    clip : float
        Largest norm of an example's gradient over all parameters; above 0.
    noise : float
        The noise's standard deviation in units of `clip`; 0 adds none.
    uniforms : Uniforms
        Source of the noise and of who is drawn.
    """
    rate = sampling_rate(len(features), batch_size)
    parameters = dict(classifier.named_parameters())
    optimiser = torch.optim.Adam(parameters.values(), lr=learning_rate)
    at_once = max(1, GRADIENT_VALUES // sum(parameter.numel() for parameter in parameters.values()))
    for _ in range(steps):
        drawn = (uniforms(len(features)) < rate).nonzero()[:, 0].to(features.device)
        total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
        for part in drawn.split(at_once) if len(drawn) else ():
            gradients = per_example_gradients(
                classifier, features[part], global_logits[part], weights[part], discrepancy_weight
            )
            for name, clipped in clip_each(gradients, clip).items():
                total[name] += clipped.sum(dim=0)
        for name, parameter in parameters.items():
            if noise:
                total[name] += noise * clip * normal(parameter.shape, uniforms).to(parameter)
            parameter.grad = total[name] / (rate * len(features))
        optimiser.step()


def sampling_rate(examples: int, batch_size: int) -> float:
    """Compute the probability with which a step takes an example: `batch_size` on average, or all of few."""
    return min(1.0, batch_size / examples)


def per_example_gradients(
    classifier: nn.Module, features: Tensor, global_logits: Tensor, weights: Tensor, discrepancy_weight: float
) -> Gradients:
    """Compute the gradient of Eq. 5 of each example alone: features (B, D), logits (B, C), weights (B,)."""
    parameters = {name: parameter.detach() for name, parameter in classifier.named_parameters()}
    buffers = dict(classifier.named_buffers())

    def loss(parameters: dict[str, Tensor], z: Tensor, logits: Tensor, weight: Tensor) -> Tensor:
        local_logits = functional_call(classifier, (parameters, buffers), (z[None],))
        return local_classifier_loss(local_logits, logits[None], weight[None], discrepancy_weight).total

    return vmap(grad(loss), in_dims=(None, 0, 0, 0))(parameters, features, global_logits, weights)


def clip_each(gradients: Gradients, clip: float) -> Gradients:
    """Multiply each example's gradient by min(1, clip / its norm); the norm is over all parameters together."""
    norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients.values()]).norm(dim=0)
    factors = (clip / norms.clamp(min=torch.finfo(norms.dtype).tiny)).clamp(max=1)
    return {name: torch.einsum("b,b...->b...", factors, gradient) for name, gradient in gradients.items()}
