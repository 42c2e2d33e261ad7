"""The run config: what `auto` becomes, what is refused and how, and that nothing is lost on the way."""

import pytest
from pydantic import ValidationError

from fmtda.domains.registry import FAMILIES
from fmtda.protocol.records import config_record, read_config
from fmtda.protocol.settings import AUTO, EXTRAS, PRESETS, Settings, SettingsError

DIGITS = FAMILIES["digits"].defaults()


def settings(**config):
    return Settings.from_run_config({key.replace("_", "-"): value for key, value in config.items()}, DIGITS)


def refusal(key, value):
    with pytest.raises(SettingsError) as caught:
        Settings.from_run_config({key: value}, DIGITS)
    return str(caught.value)


def test_the_listed_defaults_give_the_same_settings_as_no_key_at_all():
    assert Settings.from_run_config(Settings.defaults(), DIGITS) == Settings.from_run_config({}, DIGITS)


def test_preset_paper_switches_every_extra_off():
    paper = settings(preset="paper").run_config()
    assert {key: paper[key] for key in (*EXTRAS, "personalise")} == dict.fromkeys((*EXTRAS, "personalise"), False)
    assert paper["robust-share"] == 0


def test_preset_default_switches_every_extra_on_but_personalise():
    default = settings().run_config()
    assert {key: default[key] for key in EXTRAS} == dict.fromkeys(EXTRAS, True)
    assert default["personalise"] is False


def test_every_extra_field_is_named_in_the_presets():
    described = {field.alias for field in Settings.model_fields.values() if field.description.startswith("extra:")}
    assert described == set(PRESETS["paper"]) == set(PRESETS["default"])


def test_a_key_that_is_given_wins_over_preset_and_family():
    given = settings(preset="paper", guard=True, client_steps=7)
    assert (given.guard, given.standardise, given.client_steps) == (True, False, 7)


@pytest.mark.parametrize("family", [FAMILIES["digits"], FAMILIES["digit-five"]], ids=lambda family: family.name)
def test_auto_becomes_what_the_family_says(family):
    config = {key: AUTO for key, default in Settings.defaults().items() if default == AUTO}
    resolved = Settings.from_run_config(config, family.defaults()).run_config()
    assert {key: resolved[key] for key in family.defaults()} == family.defaults()
    assert AUTO not in [value for key, value in resolved.items() if key != "device"]


def test_auto_clients_are_one_for_each_target():
    targets = ("pen", "pen, blend", "pen,blend,street")
    assert [settings(targets=each, clients=AUTO).clients for each in targets] == [1, 2, 3]
    assert settings(targets="pen,blend", clients=5).clients == 5


def test_clients_that_join_late_come_on_top_and_leave_the_others_names_alone():
    alone = settings(targets="pen,blend,fonts", clients=5)
    late = settings(targets="pen,blend,fonts,street", clients=5, joining="street, street")
    assert (alone.supernodes, late.supernodes) == (5, 7)
    assert late.simulated_names(7) == [*alone.simulated_names(5), "street/0000", "street/0001"]
    assert settings(targets="pen,blend,street", joining="street", clients=AUTO).clients == 2


def test_rounds_may_grow_but_for_the_strategy_that_looks_ahead_to_the_last():
    assert settings(strategy="dualadapt").rounds_may_grow
    assert not settings(strategy="fed-dann").rounds_may_grow


def test_the_line_that_resumes_is_one_for_a_shell():
    assert settings(output="/tmp/my runs/a").resume_command == "fmtda simulate --resume '/tmp/my runs/a'"


def test_auto_stays_a_value_of_the_device():
    assert settings(device="auto").device == "auto"


def test_strings_from_the_command_line_are_read_as_their_type():
    given = settings(rounds="7", fraction="0.5", guard="false", resume="true", targets="pen, blend")
    assert (given.rounds, given.fraction, given.guard, given.resume) == (7, 0.5, False, True)
    assert given.target_domains == ("pen", "blend")


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
        ("hold-out", 0.9, "less than 0.9"),
        ("alpha", 0, "greater than 0"),
        ("alpha", "nan", "finite number"),
        ("align-learning-rate", "inf", "finite number"),
        ("weight-decay", "nan", "finite number"),
        ("server-batch", 1, "greater than or equal to 2"),
        ("confidence", 1, "less than 1"),
        ("preset", "best", "'default' or 'paper'"),
        ("partition", "by-hand", "'iid', 'dirichlet' or 'scaffold'"),
        ("device", "tpu", "'auto', 'cpu' or 'cuda'"),
        ("workload", "cooking", "'adaptation'"),
        ("guard", "perhaps", "valid boolean"),
        ("targets", "", "at least 1 character"),
        ("strategy", 3, "valid string"),
    ],
)
def test_a_bad_value_is_refused_in_one_line_with_key_value_and_what_is_allowed(key, value, allowed):
    message = refusal(key, value)
    assert message.startswith(f"{key}={value}: ")
    assert allowed in message
    assert "\n" not in message


@pytest.mark.parametrize("key", ["colour", "client_steps", "client_batch", "Rounds", ""])
def test_an_unknown_key_is_refused_in_one_line_with_all_keys_there_are(key):
    message = refusal(key, 1)
    assert message.startswith(f"{key}: no such key; allowed are ")
    assert message.partition("allowed are ")[2].split(", ") == sorted(Settings.defaults())
    assert "\n" not in message


def test_every_bad_key_gets_its_own_line():
    with pytest.raises(SettingsError) as caught:
        Settings.from_run_config({"rounds": 0, "colour": 1, "fraction": 2}, DIGITS)
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["rounds=0", "fraction=2", "colour"]


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        settings().rounds = 5


def test_the_run_config_makes_the_same_settings_again():
    given = settings(seed=5, preset="paper", fraction=0.25, output="somewhere", targets="pen,blend")
    assert Settings.from_run_config(given.run_config()) == given


def test_the_run_config_holds_nothing_but_scalars():
    assert {type(value) for value in settings().run_config().values()} <= {str, int, float, bool}


@pytest.mark.parametrize("output", ["", "somewhere"])
def test_a_message_carries_settings_and_round_unchanged(output):
    given = settings(seed=5, output=output, alpha=0.1)
    assert read_config(config_record(given, 4)) == (given, 4)


def test_changed_keeps_the_rest_and_validates():
    given = settings(seed=5)
    assert given.changed(client_steps=9).run_config() == {**given.run_config(), "client-steps": 9}
    with pytest.raises(SettingsError, match="rounds=0"):
        given.changed(rounds=0)


def test_a_run_is_private_where_anything_is_noised_and_not_by_default():
    assert not settings().private and not settings(mixture_floor=20).private
    assert settings(privacy_noise=1.0).private and settings(mixture_noise=4.0).private


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("privacy-noise", -1.0),
        ("privacy-clip", 0.0),
        ("mixture-noise", -0.1),
        ("privacy-delta", 1.0),
        ("mixture-floor", -1),
    ],
)
def test_what_promises_no_privacy_is_refused(key, value):
    assert refusal(key, value).startswith(f"{key}={value}: ")
