"""Trains a client without labels: BatchNorm statistics, its head and BatchNorm scales, or a network of its own.

Labels are confident predictions, learned on a changed view of the same inputs (as in FixMatch, Sohn et al. 2020), with
information maximisation (SHOT, Liang et al. 2020). The step size falls along a cosine to zero.

Our choice: the combinations of losses and labels; the step size's cosine; the moving average's decay; that a client
chooses the weight of its own statistics, among which ones, and by how many inputs.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fmtda.adaptation.batch_norm import batch_norm_state, load_batch_norm_state, reestimate
from fmtda.adaptation.batches import forward_slices, shuffled_batches
from fmtda.adaptation.inputs import Inputs
from fmtda.adaptation.losses import confident_cross_entropy, information_maximisation
from fmtda.adaptation.network import Network
from fmtda.adaptation.validation_criteria import view_information

AVERAGE_DECAY = 0.995
"""The decay of the moving average of a client's own network; smaller in the first steps, so that it warms up."""

JUDGED = 3000
"""The most inputs that say whether a network got better."""

SHARES = (0.0, 0.15, 0.3, 0.5, 0.7, 0.85, 1.0)
"""The parts of the largest weight among which a client chooses that of its own statistics."""

JUDGED_VALUES = 2_000_000
"""About how many numbers of the inputs say which weight is best: 650 digits, 72 photographs of 96x96."""


def adapt_statistics(network: Network, inputs: Inputs, largest_weight: float, generator: torch.Generator) -> float:
    """Mix the inputs' own BatchNorm statistics into G's, in place, with the weight that tells most about the inputs.

    Of `SHARES` of the largest weight the one is taken whose `validation_criteria.view_information` is highest, on some
    of the inputs and one view of them; the smallest of equal ones. How far a domain is from the source decides it: on
    domains near it the source's statistics, taken of far more examples, are the better ones.

    Parameters
    ----------
    network : Network
    inputs : Inputs
        The client's, two at least.
    largest_weight : float
        In [0, 1]; see `batch_norm.reestimate`.
    generator : torch.Generator
        Source of the judged inputs and their view, which are the same for all weights.

    Returns
    -------
    float
        The weight.
    """
    per_input = math.prod(inputs.example_shape)
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    judged = min(len(inputs), max(16, JUDGED_VALUES // per_input))
    server = batch_norm_state(network.feature_extractor)
    reestimate(network.feature_extractor, inputs, client_weight=1.0)
    own = batch_norm_state(network.feature_extractor)
    scores: dict[float, float] = {}
    for share in SHARES:
        load_batch_norm_state(network.feature_extractor, _mixed(server, own, share * largest_weight))
        scores[share * largest_weight] = _view_information(network, inputs, seed, judged)
    weight = max(scores, key=scores.__getitem__)
    load_batch_norm_state(network.feature_extractor, _mixed(server, own, weight))
    return weight


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

    BatchNorm keeps its running statistics (evaluation mode). Adapting scales and shifts is Tent's idea (Wang et al.
    2021). A label is the mean of the predictions on an input and on a view of it, so that a confident one is one they
    agree on; it is learned on another view, and information is maximised on the inputs as they are. With labels by the
    input alone, a weak network got weaker: what it is certain of is too often wrong.

    Parameters
    ----------
    network : Network
    inputs : Inputs
        The client's. For dense networks see `class_balanced_self_training`.
    steps, batch_size : int
        Mini-batches, and inputs in each.
    learning_rate : float
        Adam's at the start.
    threshold : float
        Class probability in (0, 1) above which a prediction counts as a label.
    generator : torch.Generator
        Source of the mini-batches and of the views.

    Returns
    -------
    dict
        `loss`, and `confident` (share of predictions above the threshold, 0 to 1), each the mean over the steps;
        empty for no steps.
    """
    training = _OnInputsAndViews(network, inputs, threshold, generator)
    return training.run(head_and_scales(network), steps, batch_size, learning_rate)


def adapt_network(
    network: Network,
    inputs: Inputs,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    threshold: float,
    generator: torch.Generator,
    class_shares: torch.Tensor | None = None,
) -> dict[str, float]:
    """Train a whole network, G and head, on unlabelled inputs, in place.

    For a client's own copy of the network, and for the local steps of federated self-training. BatchNorm goes by the
    batch (training mode), so that its statistics become the client's. A moving average of the network gives the
    labels, and is the result (mean teacher, Tarvainen and Valpola 2017); all else is learned on views.

    Parameters and results are those of `adapt_head_and_scales`, and `class_shares`, a Tensor (C,): how often each class
    is expected, as `predicted_shares` says; equally often without.
    """
    training = _OnViews(network, inputs, threshold, generator, class_shares)
    return training.run_to_average(steps, batch_size, learning_rate)


def adapt_network_unless_collapsed(
    network: Network, inputs: Inputs, generator: torch.Generator, **settings
) -> dict[str, float]:
    """Do as `adapt_network` with these settings, and undo it where the network collapsed, judged without labels.

    That is where `validation_criteria.view_information`, on the inputs and one view of them, is not higher than before.
    Training raises it by its very aim, so this tells a collapse from a success, and not a small loss from a gain.

    Returns
    -------
    dict
        That of `adapt_network`, and `kept`: 1, or 0 where the training was undone; empty for no steps.
    """
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    start = copy.deepcopy(network.state_dict())
    before = _view_information(network, inputs, seed)
    metrics = adapt_network(network, inputs, generator=generator, **settings)
    if not metrics:
        return {}
    kept = _view_information(network, inputs, seed) > before  # False where it is no number any more
    if not kept:
        network.load_state_dict(start)
    return {**metrics, "kept": float(kept)}


@torch.no_grad()
def predicted_shares(network: Network, inputs: Inputs) -> torch.Tensor:
    """Compute how often a network predicts each class on all the inputs, by its probabilities: (C,), summing to one."""
    network.eval()
    batches = (logits(network, inputs[part]).softmax(dim=1) for part in forward_slices(inputs))
    sums = torch.stack([probabilities.sum(dim=0) for probabilities in batches]).sum(dim=0)
    return sums / sums.sum()


@torch.no_grad()
def _view_information(network: Network, inputs: Inputs, seed: int, count: int = JUDGED) -> float:
    """The criterion on at most `count` of the inputs; equal seeds choose the same ones and the same views."""
    generator = torch.Generator().manual_seed(seed)
    judged = torch.randperm(len(inputs), generator=generator)[:count]
    network.eval()
    plain, changed = [], []
    for part in forward_slices(inputs):
        if len(chosen := judged[part]):
            plain.append(logits(network, inputs[chosen]).softmax(dim=1))
            changed.append(logits(network, inputs.view(chosen, generator)).softmax(dim=1))
    return view_information(torch.cat(plain), torch.cat(changed))


class SelfTraining(ABC):
    """Runs the loop of every self-training; what it learns from a mini-batch is up to `loss`."""

    def __init__(self, network: Network, inputs: Inputs, generator: torch.Generator) -> None:
        self.network, self.inputs, self.generator = network, inputs, generator

    @abstractmethod
    def loss(self, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the loss on these inputs, and the share of their predictions that it learns as labels, 0 to 1."""

    def run(
        self,
        trained: list[nn.Parameter],
        steps: int,
        batch_size: int,
        learning_rate: float,
        after_step: Callable[[int], None] = lambda step: None,
    ) -> dict[str, float]:
        """Train these parameters alone, and leave the network in evaluation mode; see `adapt_head_and_scales`.

        `after_step` is called with the number of each step, from 0.
        """
        required = [(parameter, parameter.requires_grad) for parameter in self.network.parameters()]
        self.network.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
        optimiser = torch.optim.Adam(trained, lr=learning_rate)
        losses, confident = [], []
        for step, chosen in enumerate(shuffled_batches(len(self.inputs), batch_size, steps, self.generator)):
            optimiser.param_groups[0]["lr"] = learning_rate * (1 + math.cos(math.pi * (step + 0.5) / steps)) / 2
            loss, share = self.loss(chosen)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            after_step(step)
            losses.append(loss.detach())
            confident.append(share)
        self.network.eval()
        for parameter, flag in required:
            parameter.requires_grad_(flag)
            parameter.grad = None
        if not losses:
            return {}
        return {"loss": torch.stack(losses).mean().item(), "confident": torch.stack(confident).mean().item()}


class _OnInputsAndViews(SelfTraining):
    """Labels that an input and a view of it agree on, learned on another view."""

    def __init__(self, network: Network, inputs: Inputs, threshold: float, generator: torch.Generator) -> None:
        super().__init__(network, inputs, generator)
        self.threshold = threshold

    def loss(self, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.network.eval()
        of_inputs = logits(self.network, self.inputs[chosen])
        with torch.no_grad():
            of_view = logits(self.network, self.inputs.view(chosen, self.generator))
            labels = (of_inputs.softmax(dim=1) + of_view.softmax(dim=1)) / 2
        of_another = logits(self.network, self.inputs.view(chosen, self.generator))
        loss = confident_cross_entropy(of_another, labels, self.threshold) + information_maximisation(of_inputs)
        return loss, _confident(labels, self.threshold)


class _OnViews(SelfTraining):
    """A teacher's labels for inputs, learned on a view of each; the teacher averages the steps and is the result."""

    def __init__(
        self,
        network: Network,
        inputs: Inputs,
        threshold: float,
        generator: torch.Generator,
        class_shares: torch.Tensor | None,
    ) -> None:
        super().__init__(network, inputs, generator)
        self.threshold, self.class_shares, self.teacher = threshold, class_shares, copy.deepcopy(network)

    def loss(self, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.teacher.eval()
        with torch.no_grad():
            labels = logits(self.teacher, self.inputs[chosen]).softmax(dim=1)
        self.network.train(len(chosen) > 1)
        of_view = logits(self.network, self.inputs.view(chosen, self.generator))
        information = information_maximisation(of_view, self.class_shares)
        loss = confident_cross_entropy(of_view, labels, self.threshold) + information
        return loss, _confident(labels, self.threshold)

    def run_to_average(self, steps: int, batch_size: int, learning_rate: float) -> dict[str, float]:
        """Train all parameters, and leave the network as their moving average."""
        metrics = self.run(list(self.network.parameters()), steps, batch_size, learning_rate, self._average)
        self.network.load_state_dict(self.teacher.state_dict())
        return metrics

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """Move the teacher towards the network, BatchNorm statistics included."""
        decay = min(AVERAGE_DECAY, (step + 1) / (step + 10))
        pairs = zip(self.teacher.state_dict().values(), self.network.state_dict().values(), strict=True)
        for average, value in pairs:
            if average.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:  # torch's BatchNorm counts its batches
                average.copy_(value)


def logits(network: Network, inputs: torch.Tensor) -> torch.Tensor:
    """Compute logits (R, C), a row an input, or a place where features are a map."""
    return network.classifier(network.features(inputs))


def head_and_scales(network: Network) -> list[nn.Parameter]:
    """List the classifier's parameters, and weight and bias of every BatchNorm layer; each once, in this order."""
    layers = (layer for layer in network.modules() if isinstance(layer, _BatchNorm))
    scales = [parameter for layer in layers for parameter in layer.parameters()]
    # A classifier's own BatchNorm is among both.
    return list({id(parameter): parameter for parameter in [*network.classifier.parameters(), *scales]}.values())


def _confident(probabilities: torch.Tensor, threshold: float) -> torch.Tensor:
    return (probabilities.amax(dim=1) > threshold).float().mean()


def _mixed(server: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], weight: float) -> dict:
    return {name: value.lerp(own[name], weight) for name, value in server.items()}
