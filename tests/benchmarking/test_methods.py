"""Which methods a comma list names, and that each of them is what it says."""

import pytest

from fmtda.benchmarking.methods import METHODS, SELECTIONS, select
from fmtda.protocol.settings import RunSettings
from fmtda.protocol.tables import SettingsError
from fmtda.strategies.composition import resolve
from fmtda.strategies.dualadapt.parameters import EXTRAS

NO_SCENERY = {"scenery": False}


def names(words, hints=None):
    return [method.name for method in select(words, hints or {})]


def settings_of(name):
    """The method's settings on the embedded digits, straight from the run config."""
    return resolve(METHODS[name].changes)


def test_names_come_once_and_in_the_order_of_the_table():
    assert names("mcd, dualadapt,mcd,federated")[-2:] == ["dualadapt", "mcd"]
    assert names("mcd,source-only") == ["source-only", "mcd"]


def test_all_is_everything_but_the_ablation():
    assert set(names("all")) == {name for name in METHODS if METHODS[name].group != "ablation"}
    assert {"source-only", "adabn", "fed-mcd", "fed-dann", "dualadapt-paper", "dualadapt", "mcd"} < set(names("all"))


def test_an_extra_that_is_off_for_the_data_can_be_tried_and_not_left_out():
    off = {**NO_SCENERY, "own-statistics": False}
    assert set(names("ablation", NO_SCENERY)) - set(names("ablation", off)) == {"default-local-batch-norm"}
    assert names("paper+local-batch-norm", off) == ["paper+local-batch-norm"]


def test_data_without_scenery_leaves_out_what_needs_it():
    assert set(names("all")) - set(names("all", NO_SCENERY)) == {"dualadapt-no-scenery"}
    assert set(names("ablation")) - set(names("ablation", NO_SCENERY)) == {"dualadapt-no-scenery", "paper+scenery"}
    with pytest.raises(SettingsError, match="dualadapt-no-scenery: this data is adapted to without inputs.scenery"):
        select("dualadapt-no-scenery", NO_SCENERY)


@pytest.mark.parametrize("words", ["fedsgd", "dualadapt,fedsgd"])
def test_an_unknown_name_is_refused_with_the_list(words):
    with pytest.raises(SettingsError, match="--methods fedsgd: no such method; allowed are all, .*dualadapt.*mcd"):
        select(words, {})
    with pytest.raises(SettingsError, match="names no method"):
        select(" , ", {})


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_ablation_switches_one_extra_at_a_time(extra):
    paper, alone = settings_of("dualadapt-paper"), settings_of(f"paper+{extra}")
    both = {EXTRAS["randomise"], EXTRAS["scenery"]}
    switched = both if extra == "scenery" else {EXTRAS[extra]}
    assert differing(paper, alone) == switched
    without = "dualadapt-no-scenery" if extra == "scenery" else f"default-{extra}"
    switched = both if extra == "randomise" else {EXTRAS[extra]}
    assert differing(settings_of("dualadapt"), settings_of(without)) == switched


def test_peers_differ_from_dualadapt_in_the_strategy_alone():
    for name in ("source-only", "adabn", "fedavg-self-training", "fed-mcd", "fed-dann"):
        assert differing(settings_of("dualadapt"), settings_of(name)) == {"strategy"}


def test_only_the_references_break_privacy():
    assert {name for name in METHODS if METHODS[name].breaks_privacy} == set(SELECTIONS["references"])
    assert set(SELECTIONS["references"]) == {"mcd", "dann", "target-supervised"}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_of_what_all_are_given_the_parameters_of_its_own_algorithm(name):
    method, shared = METHODS[name], {"rounds": 2, "pretraining.steps": 7}
    given = {**shared, "fed-mcd.local-steps": 3, "fed-dann.local-steps": 4, "dualadapt.components": 5}
    own = {key: value for key, value in given.items() if key.startswith(f"{method.strategy}.")}
    assert method.own(given) == {**shared, **own}


def differing(one: RunSettings, other: RunSettings) -> set[str]:
    """Keys that both have and in which they differ; the preset's name alone changes nothing."""
    own, others = one.flat(), other.flat()
    return {key for key in own.keys() & others.keys() if own[key] != others[key]} - {"preset"}
