"""One flat run config for all workloads: keys of the others are ignored at their default and refused otherwise."""

import tomllib
from pathlib import Path

import pytest

from fmtda.protocol.records import config_record, read_config
from fmtda.protocol.settings import AUTO, Settings, SettingsError
from fmtda.protocol.workloads import WORKLOADS, own_keys, read_settings, run_config_defaults

DATA = {"targets": "pen", "classes": "0,1", "input-shape": "3x32x32"}
GENERATIVE = [name for name in WORKLOADS if name != "adaptation"]


def test_pyproject_lists_every_key_with_its_default():
    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert pyproject["tool"]["flwr"]["app"]["config"] == run_config_defaults()


def test_workloads_agree_on_the_defaults_of_the_keys_that_they_share():
    for settings in WORKLOADS.values():
        defaults = settings.defaults()
        assert {key: defaults[key] for key in defaults if key != "workload"}.items() <= run_config_defaults().items()


@pytest.mark.parametrize("workload", GENERATIVE)
def test_all_of_flowers_defaults_together_mean_the_same_as_no_key_at_all(workload):
    everything = {**run_config_defaults(), "workload": workload}
    assert read_settings(everything, DATA) == read_settings({"workload": workload}, DATA)
    assert AUTO not in [v for k, v in read_settings(everything, DATA).run_config().items() if k != "device"]


@pytest.mark.parametrize(("key", "value"), [("guard", "false"), ("preset", "paper"), ("pretrain-steps", 3)])
def test_a_key_of_another_workload_is_refused_by_name_unless_it_holds_its_default(key, value):
    with pytest.raises(SettingsError) as caught:
        read_settings({"workload": "ddpm", key: value}, DATA)
    assert str(caught.value) == f"{key}={value}: workload=ddpm has no such key, adaptation has; leave it out"


def test_several_foreign_keys_get_a_line_each_and_name_all_who_have_them():
    with pytest.raises(SettingsError) as caught:
        own_keys({"width": 16, "timesteps": 10})
    assert str(caught.value).splitlines() == [
        "width=16: workload=adaptation has no such key, ddpm, ncsn has; leave it out",
        "timesteps=10: workload=adaptation has no such key, ddpm has; leave it out",
    ]


@pytest.mark.parametrize("value", ["0.1", 0.1, AUTO])
def test_a_default_counts_as_one_in_whatever_type_it_comes(value):
    key = "hold-out" if value != AUTO else "network"
    assert own_keys({"workload": "ddpm", key: value}) == {"workload": "ddpm"}


def test_unknown_workloads_and_keys_are_refused_with_those_there_are():
    with pytest.raises(SettingsError, match="workload=cooking: no such workload; allowed are adaptation, ddpm, ncsn"):
        read_settings({"workload": "cooking"})
    with pytest.raises(SettingsError, match="colours: no such key; allowed are .*colour, .*timesteps"):
        read_settings({"workload": "ddpm", "colours": 3}, DATA)


@pytest.mark.parametrize("workload", GENERATIVE)
def test_a_message_carries_the_settings_of_any_workload(workload):
    settings = read_settings({"workload": workload, "seed": 5, "local-batch": 16}, DATA)
    assert read_config(config_record(settings, 4)) == (settings, 4)
    assert type(read_config(config_record(settings, 4))[0]) is WORKLOADS[workload]


def test_adaptation_is_what_a_run_config_without_a_workload_means():
    family = {**DATA, "source": "blend", "network": "small-cnn"}
    needed = {key: 2 for key, field in Settings.by_key().items() if field.is_required() and field.annotation is int}
    rates = {key: 0.1 for key, field in Settings.by_key().items() if field.is_required() and field.annotation is float}
    assert type(read_settings({**needed, **rates}, family)) is Settings
