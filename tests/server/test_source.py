"""The labelled source: what is held out, and that equal seeds draw equal batches."""

import pytest
import torch

from fmtda.domains.examples import DataError
from fmtda.domains.source import WATCHED, Source

CPU = torch.device("cpu")
LOOK = WATCHED["digits"]


@pytest.fixture
def settings(settings_of):
    return settings_of({"data.source-limit": 200})


def pictures(images):
    return {image.numpy().tobytes() for image in images}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_nothing_held_out_is_trained_on(settings):
    source = Source.load(settings, CPU)
    assert len(source.trained.inputs) == 180
    assert len(source.watched.inputs) == 20
    assert not pictures(source.trained.inputs) & pictures(source.watched.inputs)
    assert len(pictures(source.trained.inputs) | pictures(source.watched.inputs)) == 200


def test_a_source_of_a_handful_is_refused(settings_of):
    with pytest.raises(DataError, match="source handwritten: 5 examples .*20 labelled ones"):
        Source.load(settings_of({"data.source-limit": 5}), CPU)


@pytest.mark.parametrize(("share", "held_out"), [(0.0001, 1), (0.25, 50), (0.89, 178)])
def test_the_hold_out_has_its_share_and_one_example_at_least(settings, share, held_out):
    assert len(Source.load(settings.changed({"data.hold-out": share}), CPU).watched.labels) == held_out


def test_no_limit_takes_all_of_the_source(settings):
    source = Source.load(settings.changed({"data.source-limit": 0}), CPU)
    assert len(source.trained.inputs) + len(source.watched.inputs) == 800


def test_equal_seeds_give_equal_sources_and_batches(settings):
    first, second = (Source.load(settings, CPU) for _ in range(2))
    assert torch.equal(first.trained.inputs, second.trained.inputs)
    assert torch.equal(first.backgrounds, second.backgrounds)
    for one, other in zip(first.draw(16, generator()), second.draw(16, generator()), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(first.draw(16, generator())[0], first.draw(16, generator(1))[0])


def test_another_seed_holds_out_others(settings):
    first, second = (Source.load(settings.changed({"seed": seed, "data.source-limit": 0}), CPU) for seed in (0, 1))
    assert pictures(first.watched.inputs) != pictures(second.watched.inputs)


def test_a_batch_keeps_pictures_and_labels_together(settings):
    source = Source.load(
        settings.changed(
            {"preset": "paper", "inputs.randomise": False, "inputs.scenery": False, "inputs.standardise": False}
        ),
        CPU,
    )
    inputs, labels = source.draw(32, generator())
    trained = zip(source.trained.inputs, source.trained.labels, strict=True)
    known = {image.numpy().tobytes(): int(label) for image, label in trained}
    for image, label in zip(inputs, labels, strict=True):
        assert known[((image + 1) * 127.5).round().to(torch.uint8).numpy().tobytes()] == label


def test_the_extras_decide_how_a_batch_looks(settings):
    plain = Source.load(
        settings.changed({"inputs.randomise": False, "inputs.scenery": False, "inputs.standardise": False}), CPU
    )
    assert (plain.randomise, plain.backgrounds) == (False, None)
    assert Source.load(settings.changed({"inputs.scenery": False}), CPU).backgrounds is None
    full = Source.load(settings, CPU)
    assert full.backgrounds.shape[1:] == (3, 32, 32)
    inputs, _ = full.draw(8, generator())
    assert inputs.mean(dim=(1, 2, 3)).abs().max() < 1e-4  # standardised
    assert not torch.equal(
        inputs, Source.load(settings.changed({"inputs.scenery": False}), CPU).draw(8, generator())[0]
    )


def test_the_plain_source_has_the_same_examples_and_no_extra(settings):
    source = Source.load(settings, CPU)
    plain = source.plain()
    assert plain.trained.inputs is source.trained.inputs
    assert plain.watched.inputs is source.watched.inputs
    assert (plain.standardise, plain.randomise, plain.backgrounds) == (False, False, None)


def test_a_small_hold_out_is_watched_evenly_and_each_time_randomised_anew(settings):
    source = Source.load(
        settings.changed({"inputs.randomise": False, "inputs.scenery": False, "inputs.standardise": False}), CPU
    )
    inputs, labels = source.held_out(generator())
    assert inputs.shape == (LOOK, 3, 32, 32)
    shown = [((image + 1) * 127.5).round().to(torch.uint8).numpy().tobytes() for image in inputs]
    times = [shown.count(image.numpy().tobytes()) for image in source.watched.inputs]
    assert times == [LOOK // 20] * 20
    known = {
        image.numpy().tobytes(): int(y) for image, y in zip(source.watched.inputs, source.watched.labels, strict=True)
    }
    assert [known[image] for image in shown] == labels.tolist()

    varied, _ = Source.load(settings, CPU).held_out(generator())
    assert len(pictures(varied)) > 0.9 * LOOK


def test_of_a_large_hold_out_a_part_is_drawn(settings, monkeypatch):
    monkeypatch.setitem(WATCHED, "digits", 12)
    source = Source.load(
        settings.changed({"inputs.randomise": False, "inputs.scenery": False, "inputs.standardise": False}), CPU
    )
    first, labels = source.held_out(generator())
    assert len(pictures(first)) == len(labels) == 12
    assert pictures(first) != pictures(source.held_out(generator(1))[0])
