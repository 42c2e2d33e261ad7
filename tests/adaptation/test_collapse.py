"""The collapse guard: triggers on a network that collapses, in either way, and on no healthy one."""

import math

import pytest
import torch
from torch import nn

from fmtda.adaptation.collapse import LARGEST_LOSS, LEAST_SPREAD, Health, collapsed, health
from fmtda.adaptation.mcd import MCD, TwoHeads
from fmtda.adaptation.network import Network


class Table(nn.Module):
    """Gives logits that were written down: input i is row i."""

    def __init__(self, logits):
        super().__init__()
        self.table = logits

    def forward(self, inputs):
        return self.table[inputs[:, 0].long()]


def network_of(probabilities):
    return Network(nn.Identity(), Table(torch.tensor(probabilities).log()), 1)


def rows(count):
    return torch.arange(float(count))[:, None]


def test_health_is_what_a_person_would_compute():
    network = network_of([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.9, 0.05, 0.05]])
    measured = health(network, (rows(4), torch.tensor([0, 1, 0, -1])), [rows(2), rows(4)[2:]])
    assert measured.source_accuracy == pytest.approx(2 / 3)
    means = [(0.3, 0.525, 0.175), (0.6, 0.175, 0.225)]
    assert measured.spreads == pytest.approx([-sum(p * math.log(p) for p in mean) for mean in means])


def test_health_counts_the_places_of_dense_predictions():
    dense = Network(nn.Identity(), nn.Identity(), 3)  # logits (B, h, w, C) come as they are
    logits = torch.randn(4, 2, 2, 3, generator=torch.Generator().manual_seed(0))
    labels = dense.logits(logits, (2, 3)).argmax(dim=1)  # inputs' last two axes are taken for the picture's size
    measured = health(dense, (logits, labels), [logits])
    assert measured.source_accuracy == 1
    mean = dense.logits(logits, (2, 3)).softmax(dim=1).mean(dim=(0, 2, 3))
    assert measured.spreads[0] == pytest.approx(torch.special.entr(mean).sum().item())


@pytest.mark.parametrize("training", [True, False])
def test_health_leaves_mode_and_batch_norm_as_they_were(training):
    network = Network(nn.Sequential(nn.BatchNorm1d(2)), nn.Linear(2, 3), 2).train(training)
    before = network.feature_extractor[0].running_mean.clone()
    health(network, (torch.ones(4, 2), torch.zeros(4, dtype=torch.int64)), [torch.ones(4, 2)])
    assert network.training is network.feature_extractor[0].training is training
    assert torch.equal(network.feature_extractor[0].running_mean, before)


START = Health(0.95, (2.0, 1.0))


@pytest.mark.parametrize("now", [START, Health(1.0, (2.3, 1.0)), Health(0.95 - 0.09, (1.01, 0.51))])
def test_a_healthy_network_passes(now):
    assert collapsed(now, START) is None


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (Health(0.95 - LARGEST_LOSS - 0.01, (2.0, 1.0)), "source hold-out fell from 95.0% to 84.0%"),
        (Health(0.95, (2.0, LEAST_SPREAD * 1.0 - 0.01)), "on target 2 fell from 1.00 to 0.49 nats"),
        (Health(0.95, (0.0, 1.0)), "on target 1 fell from 2.00 to 0.00 nats"),
        (Health(math.nan, (2.0, 1.0)), "source hold-out"),
        (Health(0.95, (math.nan, 1.0)), "on target 1"),
    ],
)
def test_a_collapsed_network_is_told_with_its_reason(now, said):
    assert said in collapsed(now, START)


class Moved(nn.Module):
    """G for inputs of a place and whether they are the target's: moves all of these by one learned distance."""

    def __init__(self):
        super().__init__()
        self.distance = nn.Parameter(torch.zeros(()))

    def forward(self, inputs):
        return inputs[:, :1] + self.distance * inputs[:, 1:]


def threshold_at(place):
    """A head that gives class 1 more than half from this place on."""
    head = nn.Linear(1, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        head.bias.copy_(torch.tensor([place, -place]))
    return head


@pytest.mark.parametrize(
    ("shift", "said"), [(1.0, None), (3.0, "entropy of the mean prediction on target 1 fell")], ids=["near", "far"]
)
def test_mcd_on_a_far_target_collapses_and_on_a_near_one_it_does_not(shift, said):
    """Two classes of a line, around -2 and 2, between which both heads decide. Moved by 1, the target's left class lies
    at -1, and agreement is nearer to the left: the target is moved back. Moved by 3 it lies at 1, and agreement is
    nearer to the right: every target gets class 1, and the source looks perfect still. Nothing is drawn, and with every
    weight changed by a tenth each ends as it does here, so that no machine's rounding decides."""
    around = torch.linspace(-0.5, 0.5, 11)
    places, labels = torch.cat([around - 2, around + 2]), torch.arange(2).repeat_interleave(11)
    source = torch.stack([places, torch.zeros(22)], dim=1)
    target = torch.stack([places + shift, torch.ones(22)], dim=1)
    network = TwoHeads(Network(Moved(), threshold_at(0.5), 1), threshold_at(-0.5))
    game = MCD(network, 2e-2, 0.0)
    start = health(network, (source, labels), [target])
    for _ in range(120):
        game.step((source, labels), target)
    end = health(network, (source, labels), [target])
    assert start.source_accuracy == end.source_accuracy == 1
    reason = collapsed(end, start)
    assert reason is None if said is None else said in reason
    moved = network.feature_extractor.distance.item()
    assert moved == pytest.approx(-shift, abs=0.2) if said is None else moved > 0.5
