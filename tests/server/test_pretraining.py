"""Supervised training on the source: it learns, is reproducible, and its rate follows one cycle."""

import pytest
import torch

from adaptation.augment import Randomisation, prepare
from adaptation.networks import build
from server.pretraining import one_cycle, pretrain


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def corners(count=128):
    """Four classes by the corner in which a square is lit."""
    labels = torch.randint(0, 4, (count,), generator=generator(1))
    images = torch.zeros(count, 3, 16, 16, dtype=torch.uint8)
    for number, label in enumerate(labels.tolist()):
        row, column = 8 * (label // 2), 8 * (label % 2)
        images[number, :, row + 1 : row + 7, column + 1 : column + 7] = 200
    return images, labels


def train(network, images, labels, **changes):
    settings = {
        "steps": 20,
        "batch_size": 32,
        "learning_rate": 2e-3,
        "weight_decay": 5e-4,
        "standardise": True,
        "randomisation": None,
        "backgrounds": None,
        "generator": generator(),
    }
    return pretrain(network, images, labels, **{**settings, **changes})


def new_network():
    return build("small-cnn", 4, (3, 16, 16), 0)


def difference(first, second):
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return max((one - other).abs().max().item() for one, other in pairs)


def test_the_source_is_learned():
    images, labels = corners()
    network = new_network()
    metrics = train(network, images, labels)
    with torch.no_grad():
        predictions = network(prepare(images, standardise=True)).argmax(dim=1)
    assert (predictions == labels).float().mean() > 0.95
    assert metrics["accuracy"] > 95
    assert metrics["loss"] < 0.3
    assert not network.training


def test_equal_generators_give_equal_networks_whatever_the_global_one():
    networks = [new_network() for _ in range(3)]
    backgrounds = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=generator(2))
    for network, own_seed, global_seed in zip(networks, (0, 0, 1), (1, 2, 2), strict=True):
        torch.manual_seed(global_seed)
        train(
            network,
            *corners(),
            steps=4,
            randomisation=Randomisation(),
            backgrounds=backgrounds,
            generator=generator(own_seed),
        )
    assert difference(networks[0], networks[1]) == 0
    assert difference(networks[0], networks[2]) > 0


def test_randomisation_and_standardisation_reach_the_network():
    plain, randomised, unstandardised = (new_network() for _ in range(3))
    train(plain, *corners(), steps=2)
    train(randomised, *corners(), steps=2, randomisation=Randomisation())
    train(unstandardised, *corners(), steps=2, standardise=False)
    assert difference(plain, randomised) > 0
    assert difference(plain, unstandardised) > 0


def test_the_one_cycle_schedule_peaks_after_a_quarter_and_ends_near_zero():
    shares = [one_cycle(step, 100) for step in range(100)]
    assert max(shares) == shares[25] == pytest.approx(1, abs=1e-3)
    assert shares[0] == pytest.approx(0.02)
    assert shares[-1] < 1e-3
    assert shares[:25] == sorted(shares[:25])
    assert shares[25:] == sorted(shares[25:], reverse=True)


def test_progress_is_told_after_every_step():
    told = []
    train(new_network(), *corners(), steps=3, on_step=lambda step, steps: told.append((step, steps)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_single_step_trains_and_none_changes_nothing():
    network = new_network()
    assert train(network, *corners(), steps=0) == {}
    assert difference(network, new_network()) == 0
    assert set(train(network, *corners(), steps=1)) == {"loss", "accuracy"}
    assert difference(network, new_network()) > 0


def test_images_without_as_many_labels_are_refused():
    images, labels = corners(8)
    with pytest.raises(ValueError, match="8 images and 7 labels"):
        train(new_network(), images, labels[:7])
    with pytest.raises(ValueError, match="0 images"):
        train(new_network(), images[:0], labels[:0])
