"""Pseudo-labels class by class: thresholds and loss by hand, what moves, and that rare classes are not forgotten."""

import numpy as np
import pytest
import torch

from fmtda.adaptation.augment_scenes import SceneAugmentation
from fmtda.adaptation.class_balanced_self_training import (
    BINS,
    _ClassBalanced,
    adapt_head_and_scales_by_class,
    balanced_thresholds,
)
from fmtda.adaptation.inputs import Inputs
from fmtda.adaptation.registry import build
from fmtda.adaptation.self_training import adapt_head_and_scales, head_and_scales, logits
from fmtda.domains.examples import Examples
from fmtda.domains.source import Source
from fmtda.server.pretraining import pretrain

SIZE = 32


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rooms(count, darkness, seed):
    """Pictures (N, 3, H, W) of a grey wall (0), a bright floor (1) and a small red thing (2), and their label maps."""
    labels = torch.zeros(count, SIZE, SIZE, dtype=torch.int8)
    images = torch.full((count, 3, SIZE, SIZE), 110.0)
    draw = generator(seed)
    for number in range(count):
        level = int(torch.randint(14, 22, (), generator=draw))
        labels[number, level:] = 1
        images[number, :, level:] = 190
        top, left = (int(torch.randint(0, SIZE - 8, (), generator=draw)) for _ in range(2))
        labels[number, top : top + 8, left : left + 8] = 2
        images[number, :, top : top + 8, left : left + 8] = torch.tensor([220.0, 60, 60])[:, None, None]
    images = images * (1 - darkness) + 12 * torch.randn(images.shape, generator=draw)
    return images.clamp(0, 255).to(torch.uint8), labels


@pytest.fixture(scope="module")
def network():
    trained = build("lraspp", 3, (3, SIZE, SIZE), 0)
    examples = Examples(*rooms(48, darkness=0.0, seed=1))
    source = Source(examples, examples, 8, SceneAugmentation(), True, False, None, torch.device("cpu"))
    pretrain(trained, source, steps=150, batch_size=8, learning_rate=3e-3, weight_decay=0.0, generator=generator())
    return trained.eval()


def copied(network):
    same = build("lraspp", 3, (3, SIZE, SIZE), 0)
    same.load_state_dict(network.state_dict())
    return same.eval()


def inputs_of(images):
    return Inputs(images, SceneAugmentation(), True, torch.device("cpu"))


def adapted(network, images, how=adapt_head_and_scales_by_class, **changes):
    settings = {"steps": 30, "batch_size": 8, "learning_rate": 1e-3, "generator": generator()}
    own = copied(network)
    told = how(own, inputs_of(images), **{**settings, **changes})
    return own, told


@torch.no_grad()
def intersection_over_union(network, images, labels, of):
    predicted = network(inputs_of(images)[:]).argmax(dim=1)
    return ((predicted == of) & (labels == of)).sum().item() / ((predicted == of) | (labels == of)).sum().item()


def test_thresholds_and_weights_of_a_case_by_hand():
    counts = torch.tensor([[0, 2, 2, 4], [1, 1, 0, 0], [0, 0, 0, 0]])
    thresholds, weights = balanced_thresholds(counts, sure=0.5)
    assert thresholds.tolist() == [0.75, 0.25, 0.0]
    assert weights.tolist() == pytest.approx([0.8**-0.5, 0.2**-0.5, 100.0])


def test_thresholds_are_the_quantiles_that_numpy_finds():
    confidences = np.random.default_rng(0).beta([[8], [2]], 2, size=(2, 5000))
    counts = np.stack([np.histogram(row, bins=BINS, range=(0, 1))[0] for row in confidences])
    for sure in (0.2, 0.5, 0.9):
        thresholds, _ = balanced_thresholds(torch.tensor(counts), sure)
        expected = np.quantile(confidences, 1 - sure, axis=1)
        assert np.abs(thresholds.numpy() - expected).max() < 2 / BINS


def test_the_loss_is_what_numpy_computes(network):
    images, _ = rooms(6, 0.5, 3)
    training = _ClassBalanced(copied(network), inputs_of(images), generator(5))
    chosen = torch.tensor([4, 0, 2])
    loss, share = training.loss(chosen)

    inputs, same = inputs_of(images), generator(5)
    with torch.no_grad():
        of_input = logits(network, inputs[chosen]).softmax(1).double().numpy()
        of_view = logits(network, inputs.view(chosen, same)).softmax(1).double().numpy()
        of_another = logits(network, inputs.view(chosen, same)).log_softmax(1).double().numpy()
    mean = (of_input + of_view) / 2
    labels = mean.argmax(1)
    sure = mean.max(1) >= training.thresholds.numpy()[labels]
    weights = sure * training.weights.double().numpy()[labels]
    assert loss.item() == pytest.approx(
        -(weights * of_another[np.arange(len(labels)), labels]).sum() / weights.sum(), rel=1e-5
    )
    assert share.item() == pytest.approx(sure.mean(), rel=1e-5)
    assert 0 < share < 1


def test_head_and_scales_move_and_nothing_else(network):
    own, told = adapted(network, rooms(16, 0.5, 3)[0], steps=3)
    moved = {name for name, value in own.state_dict().items() if not torch.equal(value, network.state_dict()[name])}
    names = {id(parameter): name for name, parameter in own.named_parameters()}
    assert moved == {names[id(parameter)] for parameter in head_and_scales(own)}
    assert told["loss"] > 0 and 0 < told["confident"] < 1


def test_equal_seeds_give_equal_networks(network):
    images, _ = rooms(16, 0.5, 3)
    (first, told), (again, told_again) = adapted(network, images, steps=3), adapted(network, images, steps=3)
    assert told == told_again
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())


def test_no_steps_change_nothing(network):
    own, told = adapted(network, rooms(4, 0.5, 3)[0], steps=0)
    assert told == {}
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in own.state_dict().items())


def test_a_rare_class_gains_in_the_dark(network):
    images, labels = rooms(32, 0.7, 7)
    own, _ = adapted(network, images)
    before, after = (intersection_over_union(each, images, labels, of=2) for each in (network, own))
    assert after > before + 0.02


def test_one_threshold_for_all_keeps_less_of_a_rare_class(network):
    images, labels = rooms(32, 0.5, 7)
    balanced, _ = adapted(network, images)
    by_one, _ = adapted(network, images, adapt_head_and_scales, threshold=0.9)
    kept, lost = (intersection_over_union(each, images, labels, of=2) for each in (balanced, by_one))
    assert kept > lost + 0.02
