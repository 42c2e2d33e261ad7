"""Tables of settings: dotted keys, what is refused and how, what `auto` becomes, what is compared."""

from typing import Literal

import pytest
from pydantic import ValidationError

from fmtda.protocol.tables import (
    AUTO,
    Affects,
    SettingsError,
    Switchable,
    Table,
    compared,
    flattened,
    key_and_value,
    meaning_of,
    nearest,
    nested,
    resolved,
    setting,
)


class Oven(Switchable):
    degrees: int = setting(by_data="degrees", ge=1, description="how hot")
    fan_speed: float = setting(1.5, gt=0, affects=Affects.NOTHING, description="how fast")


class Shelf(Table):
    oven: Oven
    trays: int = setting(by_data="trays", by_preset={"plain": 2, "rich": 4}, ge=0, description="how many")


class Kitchen(Table):
    cook: str = setting("nobody", min_length=1, description="who")
    mode: Literal["auto", "slow"] = setting("auto", affects=Affects.LENGTH, description="how long")
    open_at: int = setting(place=True, description="when")
    lit: bool = setting(False, affects=Affects.PRETRAINING, description="whether one sees")
    shelf: Shelf


WHOLE = {
    "cook": "ann",
    "mode": "slow",
    "open-at": 8,
    "lit": True,
    "shelf.oven.on": True,
    "shelf.oven.degrees": 200,
    "shelf.oven.fan-speed": 2.0,
    "shelf.trays": 3,
}


def refusal(given):
    with pytest.raises(SettingsError) as caught:
        Kitchen.validated(given)
    return str(caught.value)


def test_every_field_has_a_dotted_key_of_its_tables_and_its_own_name():
    assert list(Kitchen.by_key()) == [
        *("cook", "mode", "open-at", "lit", "shelf.oven.on", "shelf.oven.degrees", "shelf.oven.fan-speed"),
        "shelf.trays",
    ]
    entries = {entry.key: entry for entry in Kitchen.fields()}
    assert (entries["shelf.oven.fan-speed"].name, entries["shelf.oven.fan-speed"].table) == ("fan_speed", Oven)
    assert [entry.key for entry in Oven.fields("oven.")] == ["oven.on", "oven.degrees", "oven.fan-speed"]


def test_a_field_says_what_it_means():
    meanings = {entry.key: entry.meaning for entry in Kitchen.fields()}
    assert [key for key, meaning in meanings.items() if meaning.place] == ["open-at"]
    assert meanings["shelf.trays"].by_preset == {"plain": 2, "rich": 4}
    assert meanings["shelf.oven.degrees"].by_data == "degrees"
    assert meanings["cook"].affects == Affects.RESULT
    assert meaning_of(Kitchen.model_fields["mode"]).affects == Affects.LENGTH


def test_a_default_is_auto_where_there_is_none():
    assert Kitchen.defaults() == {
        "cook": "nobody",
        "mode": "auto",
        "open-at": AUTO,
        "lit": False,
        "shelf.oven.on": AUTO,
        "shelf.oven.degrees": AUTO,
        "shelf.oven.fan-speed": 1.5,
        "shelf.trays": AUTO,
    }


def test_what_went_in_by_dotted_keys_comes_out_by_them_and_as_tables():
    kitchen = Kitchen.validated(WHOLE)
    assert kitchen.shelf.oven.fan_speed == 2.0
    assert kitchen.flat() == WHOLE
    assert kitchen.nested() == {
        **{key: WHOLE[key] for key in ("cook", "mode", "open-at", "lit")},
        "shelf": {"oven": {"on": True, "degrees": 200, "fan-speed": 2.0}, "trays": 3},
    }
    assert nested(kitchen.flat()) == kitchen.nested()
    assert dict(flattened(kitchen.nested())) == kitchen.flat()
    assert Kitchen.validated(kitchen.flat()) == kitchen


def test_strings_from_the_command_line_are_read_as_their_type():
    assert Kitchen.validated({key: str(value).lower() for key, value in WHOLE.items()}) == Kitchen.validated(WHOLE)


def test_a_table_of_which_nothing_was_given_takes_its_defaults():
    class House(Table):
        class Door(Table):
            locked: bool = setting(True, description="whether")

        door: Door

    assert House.validated({}).door.locked is True


def test_a_table_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Kitchen.validated(WHOLE).shelf.trays = 5


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("shelf.oven.degrees", 0, "shelf.oven.degrees=0: should be greater than or equal to 1 (how hot)"),
        ("shelf.oven.degrees", "2.5", "shelf.oven.degrees=2.5: should be a valid integer"),
        ("shelf.oven.fan-speed", "nan", "shelf.oven.fan-speed=nan: should be a finite number (how fast)"),
        ("shelf.oven.fan-speed", "inf", "shelf.oven.fan-speed=inf: should be a finite number (how fast)"),
        ("shelf.oven.on", "perhaps", "shelf.oven.on=perhaps: should be a valid boolean"),
        ("mode", "quick", "mode=quick: should be 'auto' or 'slow' (how long)"),
        ("cook", "", "cook=: String should have at least 1 character (who)"),
        ("cook", 3, "cook=3: should be a valid string (who)"),
    ],
)
def test_a_bad_value_is_refused_in_one_line_with_key_value_and_what_is_allowed(key, value, said):
    message = refusal({**WHOLE, key: value})
    assert message.startswith(said)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("cok", "did you mean cook?"),
        ("shelf.oven.degree", "did you mean shelf.oven.degrees"),
        ("degrees", "did you mean shelf.oven.degrees?"),
        ("fan-sped", "did you mean shelf.oven.fan-speed?"),
        ("shelf.degrees", "did you mean shelf.oven.degrees"),
        ("shelf.oven.fan_speed", "did you mean shelf.oven.fan-speed"),
        ("zzz", "there are cook, lit, mode, open-at, and the tables shelf. (docs/configuration.md)"),
    ],
)
def test_for_an_unknown_key_the_nearest_ones_are_named(key, advice):
    message = refusal({**WHOLE, key: 1})
    assert message.startswith(f"{key}: no such key; {advice}")
    assert "\n" not in message
    assert message == f"{key}: no such key; {nearest(key, Kitchen.by_key())}"


def test_of_keys_as_near_three_at_most_are_named_each_once():
    known = ["a.steps", "b.steps", "c.steps", "d.steps", "steps-of-e"]
    advice = nearest("e.steps", dict.fromkeys(known)).removeprefix("did you mean ").removesuffix("?").split(" or ")
    assert len(advice) == len(set(advice)) == 3 and set(advice) <= set(known)


def test_every_problem_gets_its_own_line():
    lines = refusal({**WHOLE, "cok": 1, "shelf.trays": -1, "lit": 2}).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["cok", "lit=2", "shelf.trays=-1"]


def test_what_nothing_decides_is_named_field_by_field():
    without = {key: value for key, value in WHOLE.items() if key not in ("open-at", "shelf.oven.degrees")}
    assert refusal(without).splitlines() == [
        "open-at: nothing decides this here; give a value",
        'shelf.oven.degrees: nothing decides this here; give a value, or the data\'s family says its hint "degrees"',
    ]


@pytest.mark.parametrize(
    ("flat", "said"),
    [
        ({"shelf": 1, "shelf.trays": 3}, "shelf.trays: shelf is a value already, it can't be a table too"),
        ({"a.b": 1, "a.b.c.d": 3}, "a.b.c.d: b is a value already, it can't be a table too"),
        ({"shelf.trays": 3, "shelf.on": 1, "shelf": 1}, "shelf=1: this is a table; its keys are shelf.trays, shelf.on"),
    ],
)
def test_a_key_is_a_table_or_a_value_and_not_both(flat, said):
    with pytest.raises(SettingsError) as caught:
        nested(flat)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("shelf", "this is a table; its keys are shelf.oven.on, shelf.oven.degrees"),
        ("shelf.oven", "this is a table; its keys are shelf.oven.on, shelf.oven.degrees"),
        ("cook.name", "did you mean "),
    ],
)
def test_a_value_for_a_table_and_a_table_for_a_value_are_no_keys(key, said):
    assert refusal({**WHOLE, key: 3}).startswith(f"{key}: no such key; {said}")


def values(given, *, hints=(), preset="plain", usual=()):
    return resolved(Kitchen, given, hints=dict(hints), preset=preset, usual=dict(usual))


def test_auto_is_what_the_data_say_else_the_preset_else_the_workload():
    usual = {"open-at": 9, "shelf.trays": 7, "shelf.oven.degrees": 50}
    assert values({}, usual=usual) == {"open-at": 9, "shelf.trays": 2, "shelf.oven.degrees": 50}
    assert values({}, preset="rich", usual=usual)["shelf.trays"] == 4
    said = values({}, hints={"trays": 1, "degrees": 90}, preset="rich", usual=usual)
    assert said == {"open-at": 9, "shelf.trays": 1, "shelf.oven.degrees": 90}


def test_what_is_given_wins_and_auto_is_not_given():
    hints, usual = {"trays": 1}, {"open-at": 9}
    assert values({"shelf.trays": 6, "open-at": AUTO}, hints=hints, usual=usual) == {"shelf.trays": 6, "open-at": 9}
    assert values({"shelf.trays": AUTO}, hints=hints)["shelf.trays"] == 1


def test_auto_stays_where_it_is_a_value_and_vanishes_where_nobody_decides():
    assert values({"mode": AUTO, "open-at": AUTO}) == {"mode": AUTO, "shelf.trays": 2}


def test_a_hint_for_nobody_and_a_usual_value_for_a_default_change_nothing():
    assert values({}, hints={"spoons": 3}, usual={"cook": "bob"}) == {"shelf.trays": 2}


def test_what_has_another_say_is_not_compared():
    kitchen = Kitchen.validated(WHOLE)
    result = {"cook", "open-at", "shelf.oven.on", "shelf.oven.degrees", "shelf.trays"}
    assert compared(kitchen, {Affects.RESULT}) == {key: WHOLE[key] for key in WHOLE if key in result}
    assert compared(kitchen, {Affects.PRETRAINING}) == {"lit": True}
    assert compared(kitchen, {Affects.LENGTH, Affects.NOTHING}) == {"mode": "slow", "shelf.oven.fan-speed": 2.0}


def test_of_what_is_switched_off_the_switch_alone_is_compared():
    hot, cold = (Kitchen.validated({**WHOLE, "shelf.oven.on": False, "shelf.oven.degrees": d}) for d in (200, 50))
    assert compared(hot, {Affects.RESULT}) == compared(cold, {Affects.RESULT})
    assert compared(hot, {Affects.RESULT})["shelf.oven.on"] is False
    assert "shelf.oven.degrees" not in compared(hot, {Affects.RESULT})
    assert compared(hot, {Affects.LENGTH, Affects.PRETRAINING}) == {"mode": "slow", "lit": True}
    assert compared(hot, {Affects.RESULT}) != compared(Kitchen.validated(WHOLE), {Affects.RESULT})


@pytest.mark.parametrize(
    ("text", "expected"), [("a.b=c", ("a.b", "c")), (" a = 1 ", ("a", "1")), ("a==b", ("a", "=b")), ("a=", ("a", ""))]
)
def test_a_setting_on_the_command_line_is_a_key_and_a_value(text, expected):
    assert key_and_value(text) == expected


@pytest.mark.parametrize("text", ["rounds", "=5", " =5", ""])
def test_what_is_no_key_and_value_is_refused(text):
    with pytest.raises(SettingsError, match=f"-c {text}: expected KEY=VALUE"):
        key_and_value(text)
