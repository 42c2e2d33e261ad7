"""Families by name: what each says of its data, and what is refused."""

import pytest

from fmtda.domains.examples import DataError
from fmtda.domains.family import HINTS, Family
from fmtda.domains.registry import FAMILIES, family
from fmtda.generative.registry import MODELS
from fmtda.strategies.composition import settings_of
from fmtda.strategies.registry import ADAPTING

NAMED = [name for name in FAMILIES if FAMILIES[name].domains and FAMILIES[name].kind != "molecules"]
"""Those that know their domains without looking at files."""


def test_an_unknown_name_is_refused_with_those_allowed():
    with pytest.raises(DataError, match="data.name=letters: no such name; .*allowed are digits, digit-five"):
        family("letters")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("os:system", "this is no family of domains"),
        ("builtins:int", "this is no family of domains"),
        ("fmtda.domains.family:Family", "this family of domains lacks load"),
    ],
)
def test_a_place_without_a_family_is_refused_before_anything_there_is_called(place, said):
    with pytest.raises(DataError, match=f"data.name={place}: {said}"):
        family(place)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_family_is_known_by_its_name_and_speaks_of_training_in_hints(name):
    chosen = family(name)
    assert isinstance(chosen, Family) and chosen.name == name
    assert family(name) is chosen
    assert set(chosen.training) <= set(HINTS) - {"source", "targets", "classes", "input-shape"}


@pytest.mark.parametrize("name", NAMED)
def test_a_family_names_its_own_domains_as_defaults(name):
    chosen = family(name)
    assert {chosen.default_source, *chosen.default_targets} <= set(chosen.domains)
    assert chosen.default_source not in chosen.default_targets
    defaults = chosen.defaults()
    assert defaults["targets"].split(",") == list(chosen.default_targets)
    assert set(defaults) <= set(HINTS)


def test_a_source_that_is_named_is_no_default_target():
    first, *others = family("digits").default_targets
    assert family("digits").defaults(given={"source": first})["targets"].split(",") == others


def test_a_family_of_another_package_is_found_by_its_place():
    assert type(family("fmtda.domains.digits:Digits")) is type(family("digits"))


def test_every_hint_decides_a_setting_and_no_setting_waits_for_another():
    types = [settings_of("adaptation", strategy) for strategy in ADAPTING]
    types += [settings_of(model, "fedavg") for model in MODELS]
    assert {entry.meaning.by_data for each in types for entry in each.fields()} - {""} == set(HINTS)
