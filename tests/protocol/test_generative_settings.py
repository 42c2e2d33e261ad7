"""What `auto` means for the generative models, and what else follows from their settings."""

import pytest

from fmtda.protocol.settings import SettingsError
from fmtda.protocol.workloads import read_settings


def settings(workload="ddpm", **config):
    data = {"targets": "pen", "classes": "", "input-shape": "3x32x32"}
    return read_settings({"workload": workload, **{k.replace("_", "-"): v for k, v in config.items()}}, data)


@pytest.mark.parametrize(("strategy", "rate"), [("fedavg", 1.0), ("fedavgm", 1.0), ("fedadam", 0.01)])
def test_the_servers_step_size_depends_on_the_strategy(strategy, rate):
    assert settings(strategy=strategy).server_learning_rate == rate
    assert settings(strategy=strategy, server_learning_rate=0.5).server_learning_rate == 0.5


@pytest.mark.parametrize(
    ("workload", "strategy", "moments"),
    [
        ("ddpm", "fedavg", "averaged"),
        ("ncsn", "fedprox", "averaged"),
        ("ddpm", "fedadam", "fresh"),
        ("ncsn", "fedavgm", "fresh"),
    ],
)
def test_moments_are_averaged_where_the_strategy_only_averages(workload, strategy, moments):
    assert settings(workload, strategy=strategy).local_moments == moments


def test_moments_that_a_strategy_would_not_only_average_are_refused():
    with pytest.raises(SettingsError, match="local-moments=averaged: strategy=fedadam does more than average; take"):
        settings(strategy="fedadam", local_moments="averaged")


@pytest.mark.parametrize(("targets", "clients"), [("pen", 4), ("pen,blend", 4), ("a,b,c,d,e", 5)])
def test_there_are_four_clients_or_one_a_target(targets, clients):
    assert settings(targets=targets).clients == clients


@pytest.mark.parametrize("workload", ["ddpm", "ncsn"])
def test_a_strategy_that_there_is_not_is_refused_with_those_there_are(workload):
    with pytest.raises(
        SettingsError, match="strategy=dualadapt: .*'fedavg', 'fedprox', 'fedavgm', 'fedadam' or 'local'"
    ):
        settings(workload, strategy="dualadapt")


def test_the_gradient_steps_are_those_of_all_rounds():
    assert settings(rounds=7, local_steps=30).gradient_steps == 210


def test_rounds_may_grow_where_no_step_size_depends_on_them():
    assert settings(learning_rate_schedule="constant").rounds_may_grow
    assert not settings().rounds_may_grow


def test_colour_is_a_number_of_channels():
    assert [settings(colour=colour).channels for colour in ("grey", "rgb")] == [1, 3]


def test_ddpm_samples_by_either_sampler():
    assert settings(implicit_steps=7).sampled_by(None, None).implicit_steps == 7
    assert settings().sampled_by("ddim", None).implicit_steps == 50
    assert settings().sampled_by("ddim", 20).implicit_steps == 20
    assert settings().sampled_by("ddpm", None).implicit_steps == 0


@pytest.mark.parametrize(
    ("workload", "sampler", "steps", "said"),
    [
        ("ddpm", "euler", None, "--sampler euler: no such sampler; allowed are ddpm, ddim"),
        ("ddpm", None, 20, "--steps 20: only --sampler ddim"),
        ("ddpm", "ddpm", 20, "--steps 20: only --sampler ddim"),
        ("ncsn", "ddim", None, "--sampler ddim: ncsn has one way to sample"),
        ("ncsn", None, 20, "--steps 20: ncsn has one way to sample"),
    ],
)
def test_a_sampler_that_the_model_has_not_is_refused(workload, sampler, steps, said):
    with pytest.raises(SettingsError, match=said):
        settings(workload).sampled_by(sampler, steps)


@pytest.mark.parametrize("workload", ["ddpm", "ncsn", "graph-nvp", "mpgvae"])
def test_a_federation_begins_with_its_clients(workload):
    shape = "3x32x32" if workload in ("ddpm", "ncsn") else "9"
    assert settings(workload, clients=3, input_shape=shape).supernodes == 3
