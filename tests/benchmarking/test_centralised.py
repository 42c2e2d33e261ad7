"""The references that break privacy: what they write, their steps, and that a collapse is undone and told."""

import json

import pytest
import torch

from fmtda.benchmarking.centralised import REFERENCES, Reference, main
from fmtda.domains.examples import DataError, Examples
from fmtda.domains.registry import FAMILIES
from fmtda.domains.source import WATCHED
from fmtda.domains.streets import Streets
from fmtda.server.metrics import MEAN_IOU
from fmtda.server.progress import Lines


@pytest.fixture(autouse=True, scope="module")
def small_looks():
    """The seconds depend on the number of looks and of examples in one, what is tested here does not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(WATCHED, "digits", 30)
        patch.setitem(WATCHED, "scenes", 4)
        patch.setattr("fmtda.domains.streets.COUNTS", {"train": 40, "test": 6})
        patch.setattr("fmtda.benchmarking.centralised.WATCHED", 20)
        patch.setattr("fmtda.benchmarking.centralised.LOOKS", 3)
        yield


@pytest.fixture
def settings(settings_of, tmp_path):
    return settings_of(
        targets="blend,pen",
        clients=2,
        rounds=2,
        local_steps=3,
        target_limit=40,
        source_limit=60,
        pretrain_steps=12,
        scenery=False,
        output=str(tmp_path / "run"),
    )


def lines(settings):
    return [json.loads(line) for line in open(f"{settings.output}/metrics.jsonl")]


@pytest.mark.parametrize(("method", "steps"), [("mcd", 12), ("dann", 12), ("target-supervised", 12)])
def test_a_reference_writes_what_a_federated_run_writes(method, steps, settings):
    summary = Reference(method, settings, Lines()).run()
    assert json.loads(open(f"{settings.output}/summary.json").read()) == summary
    assert summary["strategy"] == method
    assert summary["breaks_privacy"] is True
    assert set(summary["accuracy"]) == set(summary["source_only"]) == {"blend", "pen"}
    assert summary["average_accuracy"] == pytest.approx(sum(summary["accuracy"].values()) / 2)
    assert summary["uplink_bytes_per_client_round"] is summary["client_seconds_per_round"] is None
    assert summary["server_seconds_per_round"] > 0
    assert summary["failures"] == 0
    written = lines(settings)
    assert [line["round"] for line in written] == list(range(len(written)))
    if summary["collapse"] is None:
        assert summary["steps"] == written[-1]["step"] == steps
        assert len(written) == 4
    assert {domain: heads["global"] for domain, heads in written[-1]["accuracy"].items()} == summary["accuracy"]


@pytest.mark.parametrize("method", REFERENCES)
def test_equal_seeds_give_equal_metrics_and_another_seed_does_not(method, settings, tmp_path):
    def told(name, **changes):
        own = settings.changed(output=str(tmp_path / name), **changes)
        Reference(method, own, Lines()).run()
        return [{k: v for k, v in line.items() if "seconds" not in k} for line in lines(own)]

    first = told("first")
    torch.rand(3)  # whatever happens to the global generator
    assert told("again") == first
    assert told("other", seed=1) != first


@pytest.mark.parametrize("method", ["mcd", "dann"])
def test_a_collapse_ends_the_run_at_the_last_good_state_and_is_told(method, settings, capsys):
    """A step size of 100 throws every weight away in the first step."""
    settings = settings.changed(local_learning_rate=100.0, pretrain_steps=60, pretrain_batch=32)
    reference = Reference(method, settings, Lines())
    summary = reference.run()
    written = lines(settings)
    assert summary["collapse"]["step"] == summary["steps"] == written[-1]["step"] < 12
    assert written[-1]["collapse"] == summary["collapse"]["reason"]
    assert "fell from" in summary["collapse"]["reason"]
    assert f"{method} collapsed by step {summary['steps']}" in capsys.readouterr().out
    weights = torch.cat([parameter.detach().flatten() for parameter in reference.network.parameters()])
    assert weights.abs().max() < 10
    if method == "dann":  # one head, so that the last good state is the pre-trained network itself
        assert summary["accuracy"] == summary["source_only"]


def test_target_supervised_needs_labels(settings):
    reference = Reference("target-supervised", settings, Lines())
    object.__setattr__(reference.targets, "trained", tuple(e.without_labels() for e in reference.targets.trained))
    with pytest.raises(DataError, match="target-supervised: not every target's training part has labels"):
        reference.run()


@pytest.mark.parametrize("method", REFERENCES)
def test_a_reference_takes_label_maps_with_void_pixels_and_unlabelled_pictures(method, settings, monkeypatch, capsys):
    def half_void(domain, part, spec):
        """A third of the pictures without any label, half of the pixels of the others."""
        drawn = Streets().load(domain, part, spec)
        labels = drawn.labels.clone()
        labels[::3], labels[:, ::2] = -1, -1
        return Examples(drawn.inputs, labels)

    monkeypatch.setattr(FAMILIES["streets"], "load", half_void)
    few = {key: value for key, value in settings.run_config().items() if key.endswith(("-steps", "-batch", "-threads"))}
    few |= {"pretrain-batch": 2, "local-batch": 2, "local-steps": 1, "plain-steps": 1, "device": "cpu"}
    pairs = [word for key, value in few.items() for word in ("-c", f"{key}={value}")]
    main([method, "--output", settings.output, "-c", "data=streets", "-c", "targets=dusk,fog", *pairs])
    summary = json.loads(open(f"{settings.output}/summary.json").read())
    assert f"{method}: average mIoU {summary['average_accuracy']:.1f} %" in capsys.readouterr().out
    assert summary["metric"] == MEAN_IOU
    pixels = [sum(counts) for counts in summary["confusion"].values()]
    assert pixels == [4 * 32 * 96] * 2  # six test pictures of 64x96, two of them unlabelled
    assert lines(settings)[0]["pretraining"]["loss"] < 100  # and no nan


def test_the_command_runs_and_says_what_it_reached(settings, capsys):
    keys = {key: value for key, value in settings.run_config().items() if key != "output" and value != ""}
    pairs = [word for key, value in keys.items() for word in ("-c", f"{key}={value}")]
    main(["target-supervised", "--output", settings.output, *pairs])
    assert "target-supervised: average" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        main(["target-supervised", "--output", settings.output, *pairs])
    assert caught.value.code == 2
    assert "the folder is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("rounds", "-c rounds: expected KEY=VALUE"),
        ("rounds=0", "rounds=0"),
        ("targets=nowhere", "nowhere: no such domain"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_made(config, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["mcd", "--output", str(tmp_path / "run"), "-c", config])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
