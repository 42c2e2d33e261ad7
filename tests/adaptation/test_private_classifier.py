"""DP-SGD against loops over single examples, plain Adam, and the noise that it promises."""

import copy
import math

import pytest
import torch
from torch import nn

from fmtda.adaptation.layers import BatchNorm1d
from fmtda.adaptation.losses import local_classifier_loss
from fmtda.adaptation.privacy_noise import seeded_uniforms
from fmtda.adaptation.private_classifier import clip_each, per_example_gradients, sampling_rate, train_privately

CLASSIFIERS = {
    "linear": lambda: nn.Linear(6, 3),
    "two layers": lambda: nn.Sequential(nn.Linear(6, 5), BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)),
}


@pytest.fixture(params=CLASSIFIERS)
def problem(request):
    """F_g, F_l beside it, and examples: features, logits of F_g, weights.

    In float64: Adam makes whole steps of the tiniest gradients, so that in float32 the order of a sum could decide
    where one goes.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        f_g, f_l = (CLASSIFIERS[request.param]().eval().double() for _ in range(2))
        features, weights = torch.randn(40, 6).double(), torch.rand(40).double()
    return f_l, features, f_g(features).detach(), weights


def seeded(seed=0):
    return seeded_uniforms(torch.Generator().manual_seed(seed))


def trained(problem, **changes):
    f_l, features, logits, weights = problem
    classifier = copy.deepcopy(f_l)
    how = {"discrepancy_weight": 0.1, "steps": 5, "batch_size": 8, "learning_rate": 1e-2, "clip": 1.0, "noise": 1.0}
    train_privately(classifier, features, logits, weights, **{**how, "uniforms": seeded(), **changes})
    return classifier.state_dict()


def test_gradients_are_those_of_each_example_alone(problem):
    f_l, features, logits, weights = problem
    gradients = per_example_gradients(f_l, features, logits, weights, 0.1)
    for i in range(len(features)):
        loss = local_classifier_loss(f_l(features[i : i + 1]), logits[i : i + 1], weights[i : i + 1], 0.1).total
        alone = torch.autograd.grad(loss, f_l.parameters())
        for (name, _), expected in zip(f_l.named_parameters(), alone, strict=True):
            torch.testing.assert_close(gradients[name][i], expected)


def test_clipping_by_hand():
    gradients = {
        "weight": torch.tensor([[3.0, 0.0], [0.3, 0.0], [0.0, 0.0]]),
        "bias": torch.tensor([[4.0], [0.4], [0.0]]),
    }
    clipped = clip_each(gradients, 1.0)  # norms 5, 0.5, 0
    torch.testing.assert_close(clipped["weight"], torch.tensor([[0.6, 0.0], [0.3, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(clipped["bias"], torch.tensor([[0.8], [0.4], [0.0]]))


def test_without_noise_and_clipping_and_with_every_example_it_is_plain_adam(problem):
    f_l, features, logits, weights = problem
    private = trained(problem, clip=math.inf, noise=0.0, batch_size=40)
    plain = copy.deepcopy(f_l)
    optimiser = torch.optim.Adam(plain.parameters(), lr=1e-2)
    for _ in range(5):
        optimiser.zero_grad()
        local_classifier_loss(plain(features), logits, weights, 0.1).total.backward()
        optimiser.step()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(private[name], value)


def test_equal_seeds_give_equal_bits_and_others_do_not(problem):
    first, second, other = trained(problem), trained(problem), trained(problem, uniforms=seeded(1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_gradients_in_small_portions_add_up_to_the_same(problem, monkeypatch):
    whole = trained(problem)
    monkeypatch.setattr("fmtda.adaptation.private_classifier.GRADIENT_VALUES", 100)
    for name, value in trained(problem).items():
        torch.testing.assert_close(value, whole[name])


def test_the_noise_has_the_promised_standard_deviation(monkeypatch):
    """What reaches Adam where no example has a gradient: noise alone, divided by the expected batch."""
    steps = []

    class Recorder(torch.optim.Adam):
        def step(self):
            steps.append(torch.cat([p.grad.flatten() for group in self.param_groups for p in group["params"]]))

    monkeypatch.setattr("torch.optim.Adam", Recorder)
    classifier = nn.Linear(50, 10)
    features = torch.zeros(100, 50)
    how = {"discrepancy_weight": 0.0, "steps": 40, "batch_size": 20, "learning_rate": 1e-2, "uniforms": seeded()}
    train_privately(classifier, features, torch.zeros(100, 10), torch.zeros(100), clip=0.5, noise=3.0, **how)
    noise = torch.stack(steps)
    assert noise.std().item() == pytest.approx(3.0 * 0.5 / 20, rel=0.03)
    assert abs(noise.mean().item()) < 6 * noise.std().item() / math.sqrt(noise.numel())


def test_one_example_more_or_less_moves_a_step_by_the_clip_at_most(problem):
    """The sensitivity that the noise is measured by: struck out, an example takes its clipped gradient along."""
    f_l, features, logits, weights = problem
    clipped = clip_each(per_example_gradients(f_l, 100 * features, logits, weights, 0.1), 0.7)
    norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in clipped.values()]).norm(dim=0)
    assert norms.max().item() == pytest.approx(0.7, rel=1e-4)


def test_few_examples_are_all_taken_and_a_step_without_any_is_noise():
    assert sampling_rate(30, 64) == 1.0 and sampling_rate(128, 64) == 0.5
    classifier = nn.Linear(4, 2)
    before = copy.deepcopy(classifier.state_dict())
    nobody = (torch.zeros(1000, 4), torch.zeros(1000, 2), torch.ones(1000))
    how = {"discrepancy_weight": 0.1, "steps": 1, "batch_size": 1, "learning_rate": 1e-2, "clip": 1.0, "noise": 1.0}
    train_privately(classifier, *nobody, **how, uniforms=lambda count: torch.full((count,), 0.999))
    assert not torch.equal(classifier.weight, before["weight"])
