"""DANN: the reversed gradient, its schedule, the domain loss by hand, and who moves in a step."""

import math

import pytest
import torch
from torch import nn

from fmtda.adaptation.dann import DANN, Discriminated, Discriminator, domain_loss, reversal_weight, reverse_gradient
from fmtda.adaptation.network import Network
from fmtda.adaptation.registry import build


@pytest.fixture
def network():
    return Discriminated(build("small-cnn", 3, (3, 8, 8), 0), Discriminator.seeded(128, 0)).train()


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randn(6, 3, 8, 8, generator=generator) for _ in range(2))
    return source, torch.tensor([0, 1, 2, 0, 1, -1]), target


def moved(network, before):
    now = dict(network.named_parameters())
    return {name.split(".")[0] for name in now if not torch.equal(now[name], before[name])}


def weights(network):
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def test_values_pass_and_the_gradient_comes_back_reversed():
    x = torch.tensor([2.0, -3.0], requires_grad=True)
    y = reverse_gradient(x, 0.25)
    assert torch.equal(y, x)
    (y**2).sum().backward()
    assert torch.equal(x.grad, -0.25 * 2 * x.detach())


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 0.0), (0.1, 0.46211716), (0.5, 0.98661430), (1.0, 0.99990920)])
def test_the_schedule_has_the_papers_values(progress, weight):
    assert reversal_weight(progress) == pytest.approx(weight, abs=1e-8)


def test_the_domain_loss_is_the_one_computed_by_hand():
    discriminator = nn.Linear(1, 1, bias=False)
    nn.init.ones_(discriminator.weight)
    source, target = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0]])
    of_source = (math.log(2) + math.log(1 + math.exp(-2))) / 2  # -log sigmoid(z)
    of_target = math.log(1 + math.exp(1))  # -log(1 - sigmoid(z))
    loss = domain_loss(discriminator, source, target, 1.0)
    assert loss.item() == pytest.approx((of_source + of_target) / 2)


def test_the_discriminator_descends_what_the_features_ascend():
    discriminator = nn.Linear(1, 1, bias=False)
    nn.init.ones_(discriminator.weight)
    z = torch.tensor([[0.5]], requires_grad=True)
    domain_loss(discriminator, torch.zeros(1, 1), z, 0.5).backward()
    slope = 1 / (1 + math.exp(-0.5)) / 2  # d/dlogit of half the target's -log(1 - sigmoid)
    assert discriminator.weight.grad.item() == pytest.approx(slope * 0.5)  # uphill is the loss's own gradient
    assert z.grad.item() == pytest.approx(-0.5 * slope)  # the feature's is turned round and weighted


def test_a_network_with_a_discriminator_predicts_as_without(pictures):
    plain = build("small-cnn", 3, (3, 8, 8), 0).eval()
    both = Discriminated(plain, Discriminator.seeded(128, 0)).eval()
    assert torch.equal(both(pictures[0]), plain(pictures[0]))


def test_equal_seeds_give_equal_discriminators_and_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    first, again, other = (Discriminator.seeded(16, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first[0].weight, again[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)


def test_a_step_moves_everything_and_lowers_the_cross_entropy(network, pictures):
    source, labels, target = pictures
    before = weights(network)
    game = DANN(network, 1e-3, 0.0)
    first = game.step((source, labels), target, 0.1)
    assert moved(network, before) == {"feature_extractor", "classifier", "discriminator"}
    for _ in range(10):
        last = game.step((source, labels), target, 0.1)
    assert last["cross-entropy"] < first["cross-entropy"]


def test_without_a_labelled_source_the_classifier_stays(network, pictures):
    before = weights(network)
    DANN(network, 1e-3, 0.0).mislead(torch.randn(6, 128), network.features(pictures[2]), 0.5)
    assert moved(network, before) == {"feature_extractor", "discriminator"}


def test_at_weight_zero_g_stays_and_the_discriminator_learns(network, pictures):
    generator = torch.Generator().manual_seed(1)
    source_features = 3 + torch.rand(6, 128, generator=generator)
    before = weights(network)
    game = DANN(network, 1e-2, 0.0)
    losses = [game.mislead(source_features, network.features(pictures[2]), 0.0) for _ in range(60)]
    assert moved(network, before) == {"discriminator"}
    assert losses[-1] < 0.8 * losses[0]


def test_g_learns_to_mislead(network, pictures):
    """Against a discriminator that stands still, target features come to be taken for the source's."""
    source_features = 3 + torch.rand(6, 128, generator=torch.Generator().manual_seed(1))
    game = DANN(network, 1e-2, 0.0)
    for _ in range(15):
        game.mislead(source_features, network.features(pictures[2]), 0.0)
    for group in game.on_adversaries.param_groups:
        group["params"] = list(network.feature_extractor.parameters())
    with torch.no_grad():
        told = network.discriminator(network.features(pictures[2])).mean().item()
    for _ in range(10):
        game.mislead(source_features, network.features(pictures[2]), 1.0)
    with torch.no_grad():
        assert network.discriminator(network.features(pictures[2])).mean().item() > told


def test_places_of_a_dense_network_are_told_apart_one_by_one():
    class Corners(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, inputs):
            return inputs[:, :, ::4, ::4].movedim(1, -1) * self.scale

    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randn(2, 3, 8, 8, generator=generator) for _ in range(2))
    labels = torch.randint(-1, 4, (2, 8, 8), generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Discriminated(Network(Corners(), nn.Linear(3, 4), 3), Discriminator(3))
    with torch.no_grad():
        rows = [pictures[:, :, ::4, ::4].movedim(1, -1).reshape(8, 3) for pictures in (source, target)]
        told = [network.discriminator(each).sigmoid().squeeze(1) for each in rows]
    expected = -(told[0].log().mean() + (1 - told[1]).log().mean()).item() / 2
    before = weights(network)
    losses = DANN(network, 1e-3, 0.0).step((source, labels), target, 0.5)
    assert losses["domain-loss"] == pytest.approx(expected, rel=1e-5)
    assert moved(network, before) == {"feature_extractor", "classifier", "discriminator"}
