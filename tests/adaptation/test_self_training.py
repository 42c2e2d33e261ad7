"""Self-training without labels: what moves, what stays, and that it helps on a shifted target."""

import pytest
import torch
from torch import nn

from fmtda.adaptation.augment import Augmentation
from fmtda.adaptation.augment_digits import DigitAugmentation, Randomisation
from fmtda.adaptation.batch_norm import batch_norm_state, reestimate
from fmtda.adaptation.inputs import Inputs
from fmtda.adaptation.layers import BatchNorm1d
from fmtda.adaptation.network import FeatureExtractor, Network
from fmtda.adaptation.registry import build
from fmtda.adaptation.self_training import (
    SHARES,
    adapt_head_and_scales,
    adapt_network,
    adapt_network_unless_collapsed,
    adapt_statistics,
    predicted_shares,
)
from fmtda.adaptation.validation_criteria import view_information
from fmtda.domains.examples import Examples
from fmtda.domains.source import Source
from fmtda.server.pretraining import pretrain

BATCH_NORM_STATISTICS = ("running_mean", "running_var")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def bars(count, contrast, seed):
    """Three classes that no small turn or shift mixes up (a bar, a level one, a cross), in noise."""
    labels = torch.randint(0, 3, (count,), generator=generator(seed))
    images = 60 * torch.rand(count, 3, 16, 16, generator=generator(seed + 1))
    for number, label in enumerate(labels):
        if label != 1:
            images[number, :, 2:14, 7:9] += contrast
        if label != 0:
            images[number, :, 7:9, 2:14] += contrast
    return images.to(torch.uint8), labels


@pytest.fixture(scope="module")
def source_network():
    network = build("small-cnn", 3, (3, 16, 16), 0)
    examples = Examples(*bars(256, contrast=180, seed=1))
    augmentation = DigitAugmentation(Randomisation(polarity=False, geometry=0.6))
    source = Source(examples, examples, 8, augmentation, True, True, None, torch.device("cpu"))
    pretrain(
        network,
        source,
        steps=120,
        batch_size=32,
        learning_rate=2e-3,
        weight_decay=0.0,
        generator=generator(),
    )
    return network


def copy_of(network):
    copied = build("small-cnn", 3, (3, 16, 16), 0)
    copied.load_state_dict(network.state_dict())
    return copied.eval()


def adapt(network, images, **changes):
    settings = {
        "steps": 15,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "threshold": 0.9,
        "generator": generator(),
    }
    return adapt_head_and_scales(network, inputs_of(images), **{**settings, **changes})


def make_own(network, images, **changes):
    settings = {
        "steps": 15,
        "batch_size": 64,
        "learning_rate": 5e-4,
        "threshold": 0.9,
        "generator": generator(),
    }
    return adapt_network(network, inputs_of(images), **{**settings, **changes})


def inputs_of(images):
    return Inputs(images, DigitAugmentation(), True, torch.device("cpu"))


# --- points of a line, where it can be said beforehand what training does ---


class Line(Augmentation):
    """Numbers as they are; a view is moved a little."""

    def prepare(self, inputs, standardise):
        return inputs

    def randomise(self, inputs, labels, generator, backgrounds=None):
        return inputs, labels

    def view(self, inputs, generator):
        return inputs + 0.05 * torch.randn(inputs.shape, generator=generator)


def halves():
    """A network that parts the line at 0, trained, one may think, on clusters at -1 and 1: its BatchNorm's statistics
    are theirs."""
    head = nn.Linear(1, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[-2.0], [2.0]]))
        head.bias.zero_()
    return Network(FeatureExtractor(BatchNorm1d(1)), head, 1).eval()


def clusters(left, right, left_count=100):
    """Two clusters 0.6 wide on a line, and which of them each point is of."""
    around = torch.linspace(-0.3, 0.3, 100)
    points = torch.cat([around[:left_count] + left, around + right])
    return points[:, None], torch.tensor([0] * left_count + [1] * 100)


def on_line(points):
    return Inputs(points, Line(), False, torch.device("cpu"))


def right_on_line(network, points, labels):
    with torch.no_grad():
        return (network(points).argmax(dim=1) == labels).float().mean().item()


LINE = {"steps": 40, "batch_size": 64, "learning_rate": 1e-2, "threshold": 0.9}


def changed_names(before, after):
    return {name for name, value in before.state_dict().items() if not torch.equal(value, after.state_dict()[name])}


@pytest.mark.parametrize(("contrast", "seed"), [(180, 1), (60, 7)])
def test_the_weight_of_own_statistics_is_the_one_that_tells_most_about_the_inputs(source_network, contrast, seed):
    inputs = inputs_of(bars(400, contrast, seed)[0])
    chosen = copy_of(source_network)
    weight = adapt_statistics(chosen, inputs, 0.8, generator())
    scores = {}
    for share in SHARES:
        network = copy_of(source_network)
        reestimate(network.feature_extractor, inputs, 0.8 * share)
        judged = torch.Generator().manual_seed(int(torch.randint(2**31, (), generator=generator())))
        order = torch.randperm(400, generator=judged)
        with torch.no_grad():
            plain, view = (network(each).softmax(dim=1) for each in (inputs[order], inputs.view(order, judged)))
        scores[0.8 * share] = view_information(plain, view)
        if 0.8 * share == weight:
            for name, value in network.state_dict().items():
                torch.testing.assert_close(value, chosen.state_dict()[name])
    assert scores[weight] == pytest.approx(max(scores.values()), abs=1e-4)  # of nearly equal ones rounding chooses


def test_a_domain_takes_its_own_statistics_if_it_is_moved_and_none_if_it_only_lacks_a_class():
    """Moved by 3, both clusters get one class by the source's statistics, and by their own they part in the middle.
    With few of the left cluster, the own mean would part the right one in two."""
    for points, expected in ((clusters(2, 4)[0], 1.0), (clusters(-1, 1, left_count=10)[0], 0.0)):
        assert adapt_statistics(halves(), on_line(points), 1.0, generator()) == expected


def test_only_the_head_and_the_batch_norm_scales_and_shifts_move(source_network):
    network = copy_of(source_network)
    adapt(network, bars(128, 40, 5)[0])
    scales = {name for name in batch_norm_state(network) if not name.endswith(BATCH_NORM_STATISTICS)}
    assert changed_names(source_network, network) == scales | {"classifier.weight", "classifier.bias"}


def test_personalising_moves_every_parameter_and_the_running_statistics(source_network):
    network = copy_of(source_network)
    make_own(network, bars(128, 90, 5)[0])
    assert changed_names(source_network, network) == set(source_network.state_dict())


def test_shares_are_the_mean_prediction(source_network):
    images, _ = bars(50, 120, 3)
    inputs = inputs_of(images)
    with torch.no_grad():
        expected = source_network(inputs[:]).softmax(dim=1).mean(dim=0)
    torch.testing.assert_close(predicted_shares(source_network, inputs), expected)


def test_predictions_move_towards_the_expected_shares():
    """On one cluster, as wide as a normal distribution, nothing but the shares says where it is to be parted."""
    points = torch.special.ndtri((torch.arange(200) + 0.5) / 200)[:, None]
    found = []
    for shares in (None, torch.tensor([0.1, 0.9])):
        network, settings = halves(), {**LINE, "steps": 100, "threshold": 1.0}  # no prediction is a label
        adapt_network(network, on_line(points), generator=generator(), class_shares=shares, **settings)
        found.append(predicted_shares(network, on_line(points))[0].item())
    assert found[0] == pytest.approx(0.5, abs=0.05)
    assert found[1] < 0.4


def test_the_personal_copy_is_the_moving_average_of_the_steps(source_network, monkeypatch):
    """With no memory the average is the last network; with a full one it is the first."""
    images = bars(128, 90, 5)[0]
    monkeypatch.setattr("fmtda.adaptation.self_training.AVERAGE_DECAY", 0.0)
    forgetful = copy_of(source_network)
    make_own(forgetful, images, steps=1)
    monkeypatch.setattr("fmtda.adaptation.self_training.AVERAGE_DECAY", 0.995)
    averaged = copy_of(source_network)
    make_own(averaged, images, steps=1)
    for name, value in averaged.state_dict().items():  # the decay of the first step is 1 / 10
        mixed = 0.1 * source_network.state_dict()[name] + 0.9 * forgetful.state_dict()[name]
        torch.testing.assert_close(value, mixed)


@pytest.mark.parametrize("train", [adapt, make_own])
def test_a_network_whose_batch_norm_counts_its_batches_trains_too(train):
    """As torch's own does: a whole number stands in its state, of which there is no average."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, kernel_size=5), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    network = Network(FeatureExtractor(*layers), nn.Linear(16, 3), 16).eval()
    metrics = train(network, bars(128, 90, 5)[0], steps=2)
    assert all(value.isfinite().all() for value in network.state_dict().values())
    assert metrics


@pytest.mark.parametrize("train", [adapt_head_and_scales, adapt_network])
def test_accuracy_on_a_shifted_target_rises_without_its_labels(train):
    """The source's border cuts into the left cluster, and certainty is had in the gap to its right."""
    network, (points, labels) = halves(), clusters(-0.1, 1.9)
    assert right_on_line(network, points, labels) < 0.9
    train(network, on_line(points), generator=generator(), **LINE)
    assert right_on_line(network, points, labels) == 1


@pytest.mark.parametrize("train", [adapt, make_own])
def test_equal_generators_give_equal_networks_and_others_do_not(source_network, train):
    images = bars(128, 40, 5)[0]
    first, same, other = (copy_of(source_network) for _ in range(3))
    torch.manual_seed(1)
    train(first, images)
    torch.manual_seed(2)
    train(same, images)
    train(other, images, generator=generator(3))
    assert changed_names(first, same) == set()
    assert changed_names(first, other)


@pytest.mark.parametrize("train", [adapt, make_own])
def test_metrics_say_the_loss_and_the_confident_share(source_network, train):
    images = bars(128, 180, 5)[0]
    metrics = train(copy_of(source_network), images, steps=2)
    assert set(metrics) == {"loss", "confident"}
    assert 0 < metrics["confident"] <= 1
    assert train(copy_of(source_network), images, steps=2, threshold=0.999999)["confident"] < metrics["confident"]


@pytest.mark.parametrize("train", [adapt, make_own])
def test_no_steps_change_nothing(source_network, train):
    network = copy_of(source_network)
    assert train(network, bars(16, 180, 5)[0], steps=0) == {}
    assert changed_names(source_network, network) == set()


@pytest.mark.parametrize("train", [adapt, make_own])
def test_afterwards_gradients_are_as_before(source_network, train):
    network = copy_of(source_network)
    network.classifier.bias.requires_grad_(False)
    train(network, bars(16, 180, 5)[0], steps=1)
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {"classifier.bias"}
    assert all(parameter.grad is None for parameter in network.parameters())


def make_own_if_better(network, images, **changes):
    settings = {"steps": 60, "batch_size": 64, "learning_rate": 1e-3, "threshold": 0.9, "generator": generator()}
    return adapt_network_unless_collapsed(network, inputs_of(images), **{**settings, **changes})


def test_a_training_that_helps_is_kept():
    network, (points, labels) = halves(), clusters(-0.1, 1.9)
    assert adapt_network_unless_collapsed(network, on_line(points), generator(), **LINE)["kept"] == 1
    assert right_on_line(network, points, labels) == 1


def test_a_training_that_goes_wrong_is_undone_to_the_bit(source_network):
    network = copy_of(source_network)
    assert make_own_if_better(network, bars(256, 180, 5)[0], steps=30, learning_rate=3.0)["kept"] == 0
    assert changed_names(source_network, network) == set()
