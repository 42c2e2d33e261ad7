"""The references that break privacy: what they write, their steps, and that a collapse is undone and told."""

import json

import pytest
import torch

from fmtda.benchmarking.centralised import Reference, main
from fmtda.benchmarking.methods import METHODS, SELECTIONS
from fmtda.domains.examples import DataError, Examples
from fmtda.domains.source import WATCHED
from fmtda.domains.streets import Streets
from fmtda.server.metrics import MEAN_IOU
from fmtda.server.progress import Lines
from fmtda.server.run_directory import RunDirectory


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
def reference_settings(settings_of, tmp_path):
    """A reference's settings, those of its federated form; a dictionary changes some."""

    def make(method, changes=None):
        strategy = METHODS[method].strategy
        few = {
            "strategy": strategy,
            "data.targets": "blend,pen",
            "clients": 2,
            "rounds": 2,
            "data.target-limit": 40,
            "data.source-limit": 60,
            "pretraining.steps": 12,
            "inputs.scenery": False,
            "output": str(tmp_path / "run"),
        }
        few |= {f"{strategy}.local-steps": 3} if method in ("mcd", "dann") else {}
        return settings_of({**few, **(changes or {})})

    return make


@pytest.fixture
def settings(reference_settings, method):
    return reference_settings(method)


def pairs_of(config):
    return [word for key, value in config.items() for word in ("-c", f"{key}={value}")]


def lines(settings):
    return [json.loads(line) for line in open(f"{settings.output}/metrics.jsonl")]


@pytest.mark.parametrize(("method", "steps"), [("mcd", 12), ("dann", 12), ("target-supervised", 12)])
def test_a_reference_writes_what_a_federated_run_writes(method, steps, settings):
    summary = Reference(method, settings, RunDirectory.create(settings), Lines()).run()
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


@pytest.mark.parametrize("method", SELECTIONS["references"])
def test_equal_seeds_give_equal_metrics_and_another_seed_does_not(method, settings, tmp_path):
    def told(name, seed=0):
        own = settings.changed({"output": str(tmp_path / name), "seed": seed})
        Reference(method, own, RunDirectory.create(own), Lines()).run()
        return [{k: v for k, v in line.items() if "seconds" not in k} for line in lines(own)]

    first = told("first")
    torch.rand(3)  # whatever happens to the global generator
    assert told("again") == first
    assert told("other", seed=1) != first


@pytest.mark.parametrize("method", ["mcd", "dann"])
def test_a_collapse_ends_the_run_at_the_last_good_state_and_is_told(method, reference_settings, capsys):
    """A step size of 100 throws every weight away in the first step."""
    rate = f"{METHODS[method].strategy}.local-learning-rate"
    settings = reference_settings(method, {rate: 100.0, "pretraining.steps": 60, "pretraining.batch": 32})
    reference = Reference(method, settings, RunDirectory.create(settings), Lines())
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


def test_target_supervised_needs_labels(reference_settings):
    settings = reference_settings("target-supervised")
    reference = Reference("target-supervised", settings, RunDirectory.create(settings), Lines())
    object.__setattr__(reference.targets, "trained", tuple(e.without_labels() for e in reference.targets.trained))
    with pytest.raises(DataError, match="target-supervised: not every target's training part has labels"):
        reference.run()


@pytest.mark.parametrize("method", SELECTIONS["references"])
def test_a_reference_takes_label_maps_with_void_pixels_and_unlabelled_pictures(method, settings, monkeypatch, capsys):
    load = Streets.load

    def half_void(self, domain, part, spec):
        """A third of the pictures without any label, half of the pixels of the others."""
        drawn = load(self, domain, part, spec)
        labels = drawn.labels.clone()
        labels[::3], labels[:, ::2] = -1, -1
        return Examples(drawn.inputs, labels)

    monkeypatch.setattr(Streets, "load", half_void)
    few = {key: value for key, value in settings.flat().items() if key.endswith(("steps", "batch", "-threads"))}
    few |= {"data.name": "streets", "data.targets": "dusk,fog", "device": "cpu"}
    few |= {"pretraining.batch": 2, "pretraining.plain-steps": 1}
    if (strategy := METHODS[method].strategy) != "source-only":
        few |= {f"{strategy}.local-batch": 2, f"{strategy}.local-steps": 1}
    main([method, "--output", settings.output, *pairs_of(few)])
    summary = json.loads(open(f"{settings.output}/summary.json").read())
    assert f"{method}: average mIoU {summary['average_accuracy']:.1f} %" in capsys.readouterr().out
    assert summary["metric"] == MEAN_IOU
    pixels = [sum(counts) for counts in summary["confusion"].values()]
    assert pixels == [4 * 32 * 96] * 2  # six test pictures of 64x96, two of them unlabelled
    assert lines(settings)[0]["pretraining"]["loss"] < 100  # and no nan


def test_the_command_runs_and_says_what_it_reached(reference_settings, capsys):
    settings = reference_settings("target-supervised")
    pairs = pairs_of({key: value for key, value in settings.flat().items() if key != "output" and value != ""})
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
        ("data.targets=nowhere", "nowhere: no such domain"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_made(config, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["mcd", "--output", str(tmp_path / "run"), "-c", config])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
