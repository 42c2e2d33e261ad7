"""The benchmark on molecules, run whole with few steps; broken off, it ends with the same figures."""

import json
import sys

import pytest

from benchmarks import molecules

NETWORK = {
    "graph-nvp": ("graph-nvp.adjacency-turns=2", "graph-nvp.adjacency-width=8", "graph-nvp.node-width=8"),
    "mpgvae": ("mpgvae.node-width=8", "mpgvae.message-width=4", "mpgvae.latent=4", "mpgvae.message-rounds=1"),
}


@pytest.fixture
def run(monkeypatch):
    def start(model, folder, steps=6):
        given = [model, "--steps", str(steps), "--samples", "30", "--temperatures", "0.5", "1.0"]
        given += [word for pair in ("training.batch=16", *NETWORK[model]) for word in ("-c", pair)]
        monkeypatch.setattr(sys, "argv", ["molecules.py", *given, "--output", str(folder)])
        monkeypatch.setattr(molecules, "LOOKS", 3)
        monkeypatch.setattr(molecules, "KEPT_EVERY", 2)
        monkeypatch.setattr(molecules, "PROPERTY_MOLECULES", 40)
        monkeypatch.setattr(molecules, "TEST_MOLECULES", 40)
        molecules.main()
        return json.loads((folder / "result.json").read_text())

    return start


def without_times(curve):
    return [{key: value for key, value in look.items() if "seconds" not in key} for look in curve]


@pytest.mark.parametrize("model", molecules.MODELS)
def test_a_run_that_was_broken_off_goes_on_to_the_same_figures(model, run, tmp_path, monkeypatch):
    whole = run(model, tmp_path / "whole")
    assert [look["step"] for look in whole["curve"]] == [2, 3, 6]
    assert [q["temperature"] for q in whole["curve"][0]["quality"]] == [0.5, 1.0]
    assert whole["reconstructed"]["molecules"] == 6858
    assert whole["quality"]["count"] == 30 and whole["quality_with_valency_correction"]["corrected"]
    assert run(model, tmp_path / "whole")["quality"] == whole["quality"], "nothing is trained again"

    look = molecules.look
    looks = []

    def broken(training, *rest):
        looks.append(training.step)
        if len(looks) == 3:
            raise KeyboardInterrupt
        return look(training, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(molecules, "look", broken)
        run(model, tmp_path / "broken")
    continued = run(model, tmp_path / "broken")
    assert without_times(continued["curve"]) == without_times(whole["curve"])
    assert continued["quality"] == whole["quality"]
    for name in ("interpolation.svg", "properties.svg", "curve.svg"):
        assert (tmp_path / "broken" / name).stat().st_size > 500


def test_each_model_is_judged_by_its_own_likelihood(run, tmp_path):
    flow, autoencoder = run("graph-nvp", tmp_path / "flow"), run("mpgvae", tmp_path / "autoencoder")
    assert flow["reconstructed"]["exactly"] == 6858 and "order_dependence" not in flow
    assert flow["curve"][-1]["likelihood"]["bits per dimension"] > 0
    bound = autoencoder["curve"][-1]["likelihood"]
    parts = sum(bound[part] for part in ("atoms, nats", "bonds, nats", "divergence, nats"))
    assert bound["negative ELBO, nats"] == pytest.approx(parts)
    dependence = autoencoder["order_dependence"]
    assert dependence["input_permuted"] == pytest.approx(dependence["as_trained"], rel=1e-4)


def test_a_temperature_is_chosen_by_the_share_of_samples_that_are_valid_unique_and_novel():
    assert max([{"product": 20.0}, {"product": 31.5}], key=molecules.promise) == {"product": 31.5}
