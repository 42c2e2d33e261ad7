"""MCD: its prediction, its losses against plain Python, and who moves in which of the three steps."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from fmtda.adaptation.mcd import GENERATOR_STEPS, MCD, TwoHeads, train_second_classifier
from fmtda.adaptation.network import Network
from fmtda.adaptation.registry import build


def two_heads(name="small-cnn", classes=3, shape=(3, 8, 8)):
    network, other = (build(name, classes, shape, seed) for seed in (0, 1))
    return TwoHeads(network, other.classifier).train()


def dense(seed=0):
    """A dense network by hand: every fourth place of the picture, its three colours as features, two linear heads."""

    class Corners(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, inputs):
            return inputs[:, :, ::4, ::4].movedim(1, -1) * self.scale

    torch.manual_seed(seed)
    return TwoHeads(Network(Corners(), nn.Linear(3, 4), 3), nn.Linear(3, 4))


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randn(6, 3, 8, 8, generator=generator) for _ in range(2))
    return source, torch.tensor([0, 1, 2, 0, 1, -1]), target


def weights(module):
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def moved(network, before):
    """The parts of the network with a weight that isn't what it was."""
    now = weights(network)
    return {name.split(".")[0] for name in now if not torch.equal(now[name], before[name])}


ALL = {"feature_extractor", "classifier", "second_classifier"}


@pytest.mark.parametrize("make", [two_heads, dense])
def test_the_prediction_is_the_mean_of_both_classifiers_probabilities(make):
    network = make().eval()
    inputs = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    features = network.feature_extractor(inputs)
    separate = [Network(network.feature_extractor, head, 3).logits(features, (8, 8)) for head in network.heads]
    expected = sum(logits.softmax(dim=1) for logits in separate) / 2
    torch.testing.assert_close(network(inputs).softmax(dim=1), expected)
    torch.testing.assert_close(network(inputs).exp(), expected)  # they are log-probabilities


def test_each_loss_is_the_one_that_plain_python_computes(pictures):
    source, labels, target = pictures
    network = two_heads().eval()
    game = MCD(network, learning_rate=1e-30, weight_decay=0.0)  # nothing moves to see
    p_s = [head(network.feature_extractor(source)).softmax(dim=1) for head in network.heads]
    p_t = [head(network.feature_extractor(target)).softmax(dim=1) for head in network.heads]
    logs = [p[b, label].log().item() for p in p_s for b, label in enumerate(labels) if label >= 0]
    gaps = [abs(p_t[0][b, c] - p_t[1][b, c]).item() for b in range(6) for c in range(3)]
    losses = game.step((source, labels), target)
    assert losses["cross-entropy"] == pytest.approx(-sum(logs) / 10)
    for name in ("discrepancy-maximised", "discrepancy"):
        assert losses[name] == pytest.approx(sum(gaps) / 18)


def test_every_step_moves_its_own_part_alone(pictures):
    source, labels, target = pictures
    network = two_heads()
    game = MCD(network, 1e-3, 0.0)
    for act, allowed in (
        (lambda: game.classify(source, labels), ALL),
        (lambda: game.separate(target, (source, labels)), ALL - {"feature_extractor"}),
        (lambda: game.separate(target), ALL - {"feature_extractor"}),
        (lambda: game.agree(target), {"feature_extractor"}),
    ):
        before = weights(network)
        act()
        assert moved(network, before) == allowed


def test_b_follows_the_gradient_that_autograd_gives_the_whole_loss(pictures):
    source, labels, target = pictures
    network = two_heads().eval()
    reference = copy.deepcopy(network)
    game = MCD(network, 1.0, 0.0)
    game.on_heads = torch.optim.SGD([p for head in network.heads for p in head.parameters()], lr=1.0)
    game.separate(target, (source, labels))

    z_s, z_t = reference.feature_extractor(source), reference.feature_extractor(target)
    cross_entropies = [functional.cross_entropy(head(z_s), labels, ignore_index=-1) for head in reference.heads]
    p_1, p_2 = (head(z_t).softmax(dim=1) for head in reference.heads)
    (sum(cross_entropies) - (p_1 - p_2).abs().mean()).backward()
    for own, other in zip(network.heads, reference.heads, strict=True):
        for parameter, expected in zip(own.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(parameter, expected - expected.grad)


def test_b_raises_the_discrepancy_and_c_lowers_it(pictures):
    _, _, target = pictures
    network = two_heads()
    game = MCD(network, 1e-2, 0.0)
    first = game.separate(target)
    for _ in range(5):
        game.separate(target)
    raised = game.separate(target)
    for _ in range(5):
        lowered = game.agree(target)
    assert raised > 1.5 * first
    assert lowered < raised / 2


def test_c_is_repeated_as_the_recipe_says(pictures):
    network = two_heads()
    game = MCD(network, 1e-3, 0.0)
    game.agree(pictures[2])
    steps = {int(state["step"]) for state in game.on_extractor.state.values()}
    assert steps == {GENERATOR_STEPS} == {4}


def test_the_recipe_runs_on_a_dense_network(pictures):
    source, _, target = pictures
    labels = torch.randint(-1, 4, (6, 8, 8), generator=torch.Generator().manual_seed(2))
    network = dense()
    before = weights(network)
    game = MCD(network, 1e-3, 0.0)
    features = network.feature_extractor(target)
    p_1, p_2 = (head(features).softmax(dim=-1) for head in network.heads)
    assert game.separate(target) == pytest.approx((p_1 - p_2).abs().mean().item())
    losses = game.step((source, labels), target)
    assert moved(network, before) == ALL
    assert all(0 < value < 10 for value in losses.values())


def test_dense_cross_entropy_is_taken_at_full_resolution():
    network = dense()
    inputs = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    labels = torch.randint(-1, 4, (2, 8, 8), generator=torch.Generator().manual_seed(4))
    features = network.feature_extractor(inputs)
    expected = 0.0
    for head in network.heads:
        full = functional.interpolate(head(features).movedim(-1, 1), (8, 8), mode="bilinear")
        logs = full.log_softmax(dim=1).gather(1, labels.clamp(min=0)[:, None])[:, 0]
        expected -= logs[labels >= 0].mean()
    torch.testing.assert_close(network.cross_entropy(features, labels), expected)


def test_a_fresh_second_classifier_learns_the_source_and_nothing_else_moves(pictures):
    source, labels, _ = pictures
    network = two_heads()
    before, state = weights(network), copy.deepcopy(network.state_dict())
    network.eval()
    features = network.feature_extractor(source)
    loss = functional.cross_entropy(network.second_classifier(features), labels, ignore_index=-1).item()
    train_second_classifier(network, [(source, labels)] * 40, 5e-2, 0.0)
    assert moved(network, before) == {"second_classifier"}
    assert not network.training
    own = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("second")}
    assert all(torch.equal(tensor, state[name]) for name, tensor in own.items())  # BatchNorm's statistics too
    trained = functional.cross_entropy(network.second_classifier(features), labels, ignore_index=-1).item()
    assert trained < loss / 2
