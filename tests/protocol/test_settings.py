"""What every run's settings are: their ranges, what follows from them, and that nothing is lost on the way."""

import pytest
from pydantic import ValidationError

from fmtda.protocol.records import config_record, read_config
from fmtda.protocol.settings import names_in
from fmtda.protocol.tables import Affects, SettingsError
from fmtda.strategies.composition import read_settings, resolve, settings_in, settings_of, workloads

NOISE = ("privacy.noise", "privacy.mixture-noise")


def refusal(key, value):
    with pytest.raises(SettingsError) as caught:
        resolve({key: value})
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("rounds", -3, "greater than or equal to 1"),
        ("rounds", "2.5", "valid integer"),
        ("rounds", "many", "valid integer"),
        ("seed", -1, "greater than or equal to 0"),
        ("seed", 2**31, "less than or equal to 2147483647"),
        ("clients", 0, "greater than or equal to 1"),
        ("fraction", 0, "greater than 0"),
        ("fraction", 1.5, "less than or equal to 1"),
        ("data.hold-out", 0.9, "less than 0.9"),
        ("data.alpha", 0, "greater than 0"),
        ("data.alpha", "nan", "finite number"),
        ("data.input-shape", "3x0", "match pattern"),
        ("simulation.late-round", 1, "greater than or equal to 2"),
        ("dualadapt.align-learning-rate", "inf", "finite number"),
        ("pretraining.weight-decay", "nan", "finite number"),
        ("dualadapt.server-batch", 1, "greater than or equal to 2"),
        ("dualadapt.self-training.confidence", 1, "less than 1"),
        ("preset", "best", "'default' or 'paper'"),
        ("data.partition", "by-hand", "'iid', 'dirichlet' or 'scaffold'"),
        ("device", "tpu", "'auto', 'cpu' or 'cuda'"),
        ("dualadapt.guard", "perhaps", "valid boolean"),
        ("data.targets", "", "at least 1 character"),
        ("trackers", "paper", "match pattern"),
        ("privacy.noise", -1.0, "greater than or equal to 0"),
        ("privacy.clip", 0.0, "greater than 0"),
        ("privacy.mixture-noise", -0.1, "greater than or equal to 0"),
        ("privacy.delta", 1.0, "less than 1"),
        ("privacy.mixture-floor", -1, "greater than or equal to 0"),
    ],
)
def test_a_bad_value_is_refused_in_one_line_with_key_value_and_what_is_allowed(key, value, allowed):
    message = refusal(key, value)
    assert message.startswith(f"{key}={value}: ")
    assert allowed in message
    assert "\n" not in message


def test_strings_from_the_command_line_are_read_as_their_type():
    strings = {"rounds": "7", "fraction": "0.5", "dualadapt.guard": "false", "resume": "true"}
    given = resolve({**strings, "data.targets": "pen, blend"})
    assert (given.rounds, given.fraction, given.algorithm.guard, given.resume) == (7, 0.5, False, True)
    assert given.target_domains == ("pen", "blend")


def test_auto_stays_a_value_of_the_device():
    assert resolve({"device": "auto"}).device == "auto"


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        resolve({}).rounds = 5
    with pytest.raises(ValidationError, match="frozen"):
        resolve({}).data.alpha = 5


def test_the_flat_settings_make_the_same_again_and_are_nothing_but_scalars():
    given = resolve({"seed": 5, "preset": "paper", "fraction": 0.25, "output": "some", "data.targets": "pen,blend"})
    assert read_settings(given.flat()) == given
    assert {type(value) for value in given.flat().values()} <= {str, int, float, bool}


@pytest.mark.parametrize("output", ["", "somewhere"])
def test_a_message_carries_settings_and_round_unchanged(output):
    given = resolve({"seed": 5, "output": output, "data.alpha": 0.1})
    text, server_round = read_config(config_record(given, 4))
    assert (settings_in(text), server_round) == (given, 4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no JSON"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "no JSON"),
        ('{"rounds": 1, "rounds": 2}', "a key is given twice"),
        ('{"network.name": "mlp"}', "network.name: a dot"),
        ("[1]", "a JSON list, expected an object"),
        ('{"strategy": "dualadapt", "colour": 1}', "colour: no such key"),
    ],
)
def test_a_message_with_other_settings_is_refused(text, said):
    with pytest.raises(SettingsError, match=said):
        settings_in(text)


def test_changed_keeps_the_rest_and_validates():
    given = resolve({"seed": 5})
    changed = given.changed({"dualadapt.client-steps": 9, "data.alpha": 2.0})
    assert changed.flat() == {**given.flat(), "dualadapt.client-steps": 9, "data.alpha": 2.0}
    assert type(changed) is type(given)
    with pytest.raises(SettingsError, match="rounds=0"):
        given.changed({"rounds": 0})
    with pytest.raises(SettingsError, match="colour: no such key"):
        given.changed({"colour": 1})


@pytest.mark.parametrize("strategy", ["source-only", "fed-mcd"])
def test_changed_keeps_an_algorithm_of_its_own(strategy):
    given = resolve({"strategy": strategy})
    assert type(given.changed({"seed": 1}).algorithm) is type(given.algorithm)


def test_clients_that_join_late_come_on_top_and_leave_the_others_names_alone():
    alone = resolve({"data.targets": "pen,blend,fonts", "clients": 5})
    config = {"data.targets": "pen,blend,fonts,street", "clients": 5, "simulation.late": "street, street"}
    late = resolve({**config, "simulation.late-round": 3})
    assert (alone.supernodes, late.supernodes) == (5, 7)
    assert late.simulated_names(7) == [*alone.simulated_names(5), "street/0000", "street/0001"]
    assert [late.absent_domains(server_round) for server_round in (1, 2, 3)] == [("street", "street")] * 2 + [()]
    assert alone.absent_domains(1) == ()


@pytest.mark.parametrize("workload", [name for name in workloads() if name != "adaptation"])
def test_a_federation_of_a_generative_model_begins_with_its_clients(workload):
    settings = resolve({"workload": workload, "clients": 3})
    assert settings.supernodes == 3
    assert settings.late_domains == settings.absent_domains(1) == ()


def test_rounds_may_grow_but_for_the_strategy_that_looks_ahead_to_the_last():
    assert resolve({"strategy": "dualadapt"}).rounds_may_grow
    assert resolve({"strategy": "source-only"}).rounds_may_grow
    assert not resolve({"strategy": "fed-dann"}).rounds_may_grow


def test_rounds_of_a_generative_model_may_grow_where_no_step_size_depends_on_them():
    assert resolve({"workload": "ddpm", "training.schedule": "constant"}).rounds_may_grow
    assert not resolve({"workload": "ddpm"}).rounds_may_grow
    looks_ahead = resolve({"workload": "ddpm", "training.schedule": "constant"})
    object.__setattr__(looks_ahead, "algorithm", resolve({"strategy": "fed-dann"}).algorithm)
    assert not looks_ahead.rounds_may_grow


def test_a_classifier_has_classes():
    assert refusal("data.classes", "").startswith("data.classes=: ")


def test_the_gradient_steps_are_those_of_all_rounds():
    assert resolve({"workload": "ddpm", "rounds": 7, "training.steps": 30}).gradient_steps == 210


def test_a_run_is_private_where_anything_is_noised_and_not_by_default():
    assert not resolve({}).private
    assert not resolve({"privacy.mixture-floor": 20}).private
    assert all(resolve({key: 1.0}).private for key in NOISE)
    assert not resolve({"workload": "ddpm"}).private


def test_names_and_sides_are_taken_apart():
    settings = resolve({"data.classes": "road, car,,sky ", "data.input-shape": "3x16x24", "trackers": "mlflow,wandb"})
    assert settings.class_names == names_in("road,car,sky") == ("road", "car", "sky")
    assert settings.shape == (3, 16, 24)
    assert settings.tracker_names == ("mlflow", "wandb")


def test_what_is_nobody_elses_business_changes_no_result():
    """A place on this machine: a resumed run, or one that is compared, may have another."""
    for workload in workloads():
        fields = settings_of(workload, resolve({"workload": workload}).strategy).fields()
        places = {entry.key: entry.meaning.affects for entry in fields if entry.meaning.place}
        assert {"output", "resume", "data.dir"} <= set(places)
        assert set(places.values()) == {Affects.NOTHING}


def test_every_setting_says_what_it_means():
    for workload in workloads():
        fields = settings_of(workload, resolve({"workload": workload}).strategy).by_key()
        assert all(field.description for field in fields.values())
