"""What a client learns without labels: its head and BatchNorm scales, or a whole network of its own."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from adaptation.batches import shuffled_batches
from adaptation.inputs import Inputs
from adaptation.losses import confident_cross_entropy, information_maximisation
from adaptation.networks import Network


def adapt_head_and_scales(
    network: Network,
    inputs: Inputs,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    threshold: float,
    generator: torch.Generator,
) -> dict[str, float]:
    """Train the classifier and the BatchNorm scales and shifts on unlabelled inputs, in place.

    The loss is cross-entropy with the network's own confident predictions plus information maximisation.
    BatchNorm keeps its running statistics (evaluation mode). The combination is our choice; adapting scales
    and shifts by entropy is Tent (Wang et al. 2021), information maximisation SHOT (Liang et al. 2020).

    Parameters
    ----------
    network : Network
    inputs : Inputs
        The client's. A dense network's predictions count place by place of its feature maps.
    steps, batch_size : int
        Mini-batches, and inputs in each.
    learning_rate : float
        Adam's, constant.
    threshold : float
        Class probability in (0, 1) above which a prediction counts as a label.
    generator : torch.Generator
        Source of the mini-batches.

    Returns
    -------
    dict
        See `_train`.
    """
    trained = _unique([*network.classifier.parameters(), *_scales_and_shifts(network)])

    def logits_and_teacher(chosen: Tensor) -> tuple[Tensor, Tensor]:
        logits = network.classifier(network.features(inputs[chosen]))
        return logits, logits.detach().softmax(dim=1)

    batches = shuffled_batches(len(inputs), batch_size, steps, generator)
    return _train(network, trained, batches, logits_and_teacher, learning_rate, threshold)


def adapt_network(
    network: Network,
    inputs: Inputs,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    threshold: float,
    generator: torch.Generator,
) -> dict[str, float]:
    """Train a whole network, G and head, on unlabelled inputs, in place.

    For a client's own copy of the network, and for the local steps of federated self-training.

    Labels are the network's confident predictions on the inputs as they are, learned on a changed view of the same
    inputs (as in FixMatch, Sohn et al. 2020), with information maximisation on that view. BatchNorm keeps its running
    statistics. The combination is our choice.

    Parameters
    ----------
    network : Network
        The client's copy, BatchNorm statistics already its own.
    inputs : Inputs
        The client's. A dense network's predictions count place by place of its feature maps.
    steps, batch_size : int
        Mini-batches, and inputs in each.
    learning_rate : float
        Adam's, constant.
    threshold : float
        Class probability in (0, 1) above which a prediction counts as a label.
    generator : torch.Generator
        Source of the mini-batches and of the views.

    Returns
    -------
    dict
        See `_train`.
    """

    def logits_and_teacher(chosen: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            teacher = network.classifier(network.features(inputs[chosen])).softmax(dim=1)
        return network.classifier(network.features(inputs.view(chosen, generator))), teacher

    batches = shuffled_batches(len(inputs), batch_size, steps, generator)
    return _train(network, list(network.parameters()), batches, logits_and_teacher, learning_rate, threshold)


def _train(
    network: Network,
    trained: list[nn.Parameter],
    batches: Iterable[Tensor],
    logits_and_teacher: Callable[[Tensor], tuple[Tensor, Tensor]],
    learning_rate: float,
    threshold: float,
) -> dict[str, float]:
    """Minimise pseudo-label cross-entropy plus information maximisation over the parameters `trained` alone.

    Returns
    -------
    dict
        `loss`, and `confident` (share of predictions above the threshold, 0 to 1), each the mean over the
        steps; empty for no steps.
    """
    required = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    network.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    network.eval()
    optimiser = torch.optim.Adam(trained, lr=learning_rate)
    losses, confident = [], []
    for chosen in batches:
        logits, teacher = logits_and_teacher(chosen)
        loss = confident_cross_entropy(logits, teacher, threshold) + information_maximisation(logits)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
        confident.append((teacher.amax(dim=1) > threshold).float().mean())
    for parameter, flag in required:
        parameter.requires_grad_(flag)
        parameter.grad = None
    if not losses:
        return {}
    return {"loss": torch.stack(losses).mean().item(), "confident": torch.stack(confident).mean().item()}


def _scales_and_shifts(network: nn.Module) -> list[nn.Parameter]:
    """Weight and bias of every BatchNorm layer."""
    layers = (layer for layer in network.modules() if isinstance(layer, _BatchNorm))
    return [parameter for layer in layers for parameter in layer.parameters()]


def _unique(parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    """Each parameter once: a classifier's own BatchNorm is among both."""
    return list({id(parameter): parameter for parameter in parameters}.values())
