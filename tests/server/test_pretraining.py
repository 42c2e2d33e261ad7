"""Supervised training on the source: it learns, is reproducible, and its rate follows one cycle."""

from pathlib import Path

import pytest
import torch

from fmtda.adaptation.augment import prepare
from fmtda.adaptation.augment_digits import DigitAugmentation
from fmtda.adaptation.registry import build
from fmtda.domains.examples import Examples
from fmtda.domains.source import Source
from fmtda.server.pretraining import one_cycle, pretrain, pretrained
from fmtda.server.progress import Lines
from fmtda.server.run_directory import WriteError


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
        "generator": generator(),
    }
    extras = {"standardise": True, "randomise": False, "backgrounds": None}
    extras |= {key: changes.pop(key) for key in set(changes) & set(extras)}
    examples = Examples(images, labels)
    source = Source(examples, examples, look=8, augmentation=DigitAugmentation(), device=torch.device("cpu"), **extras)
    return pretrain(network, source, **{**settings, **changes})


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
            randomise=True,
            backgrounds=backgrounds,
            generator=generator(own_seed),
        )
    assert difference(networks[0], networks[1]) == 0
    assert difference(networks[0], networks[2]) > 0


def test_randomisation_and_standardisation_reach_the_network():
    plain, randomised, unstandardised = (new_network() for _ in range(3))
    train(plain, *corners(), steps=2)
    train(randomised, *corners(), steps=2, randomise=True)
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


def test_nothing_to_train_on_is_refused():
    images, labels = corners(8)
    with pytest.raises(ValueError, match="no examples"):
        train(new_network(), images[:0], labels[:0])


def test_unknown_labels_do_not_count():
    images, labels = corners(64)
    half_known, all_known = new_network(), new_network()
    train(half_known, images, torch.where(torch.arange(64) % 2 == 0, labels, -1), steps=1, batch_size=64)
    train(all_known, images, labels, steps=1, batch_size=64)
    assert difference(half_known, all_known) > 0
    nothing_known = train(new_network(), images, torch.where(torch.arange(64) == 0, labels, -1), steps=1, batch_size=64)
    assert nothing_known["accuracy"] in (0, 100)  # of the one known label


@pytest.fixture
def with_bases(settings_of, tmp_path):
    return settings_of({"pretraining.base-dir": str(tmp_path / "bases"), "data.source-limit": 100})


def pretrained_from_scratch(settings, stage="pre-training", steps=2):
    network = build("small-cnn", 10, (3, 32, 32), 0)
    source = Source.load(settings, torch.device("cpu"))
    told = Told()
    report = pretrained(network, source, settings, steps, stage, told)
    return network, report, told


def test_an_equal_pre_training_is_done_once_and_read_from_then_on(with_bases):
    first, report, told = pretrained_from_scratch(with_bases)
    again, same_report, told_again = pretrained_from_scratch(with_bases)
    assert difference(first, again) == 0
    assert same_report == report
    assert (told.steps, told_again.steps) == (2, 0)
    assert not again.training


def test_a_kept_network_that_was_cut_short_is_trained_anew(with_bases):
    first, report, _ = pretrained_from_scratch(with_bases)
    (kept,) = Path(with_bases.pretraining.base_dir).iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    again, same_report, told = pretrained_from_scratch(with_bases)
    assert told.steps == 2
    assert (difference(first, again), same_report) == (0, report)
    assert pretrained_from_scratch(with_bases)[2].steps == 0


def test_a_folder_for_kept_networks_that_cant_be_written_to_is_refused_before_the_work(with_bases):
    Path(with_bases.pretraining.base_dir).write_text("a file")
    told = Told()
    network = build("small-cnn", 10, (3, 32, 32), 0)
    source = Source.load(with_bases, torch.device("cpu"))
    with pytest.raises(WriteError, match="can't write the pre-trained network to .*bases: .*; make room"):
        pretrained(network, source, with_bases, 2, "pre-training", told)
    assert told.steps == 0


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"inputs.standardise": False},
        {"inputs.scenery": False},
        {"data.source-limit": 90},
        {"network.precision": "bfloat16"},
        {"pretraining.batch": 9},
        {"pretraining.weight-decay": 0.0},
    ],
)
def test_another_pre_training_is_not_taken_for_it(with_bases, change):
    pretrained_from_scratch(with_bases)
    assert pretrained_from_scratch(with_bases.changed(change))[2].steps == 2
    assert pretrained_from_scratch(with_bases, stage="plain reference")[2].steps == 2
    assert pretrained_from_scratch(with_bases, steps=3)[2].steps == 3


class Told(Lines):
    """Counts the steps that were told of."""

    steps = 0

    def advance(self, count):
        self.steps += count
