"""Which methods a comma list names, and that each of them is what it says."""

import pytest

from fmtda.benchmarking.methods import METHODS, SELECTIONS, select
from fmtda.domains.registry import family
from fmtda.protocol.settings import EXTRAS, Settings, SettingsError

NO_SCENERY = {"scenery": False}


def names(words, family_defaults=None):
    return [method.name for method in select(words, family_defaults or {})]


def settings_of(name):
    """The method's settings on the embedded digits, straight from the run config."""
    return Settings.from_run_config(METHODS[name].changes, family("digits").defaults())


def test_names_come_once_and_in_the_order_of_the_table():
    assert names("mcd, dualadapt,mcd,federated")[-2:] == ["dualadapt", "mcd"]
    assert names("mcd,source-only") == ["source-only", "mcd"]


def test_all_is_everything_but_the_ablation():
    assert set(names("all")) == {name for name in METHODS if METHODS[name].group != "ablation"}
    assert {"source-only", "adabn", "fed-mcd", "fed-dann", "dualadapt-paper", "dualadapt", "mcd"} < set(names("all"))


def test_an_extra_that_is_off_for_the_data_can_be_tried_and_not_left_out():
    off = {**NO_SCENERY, "self-train": False}
    assert set(names("ablation", NO_SCENERY)) - set(names("ablation", off)) == {"default-self-train"}
    assert names("paper+self-train", off) == ["paper+self-train"]


def test_data_without_scenery_leaves_out_what_needs_it():
    assert set(names("all")) - set(names("all", NO_SCENERY)) == {"dualadapt-no-scenery"}
    assert set(names("ablation")) - set(names("ablation", NO_SCENERY)) == {"dualadapt-no-scenery", "paper+scenery"}
    with pytest.raises(SettingsError, match="dualadapt-no-scenery: this data is adapted to without scenery"):
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
    switched = {"randomise", "scenery"} if extra == "scenery" else {extra}
    assert differing(paper, alone) == switched
    without = "dualadapt-no-scenery" if extra == "scenery" else f"default-{extra}"
    switched = {"randomise", "scenery"} if extra == "randomise" else {extra}
    assert differing(settings_of("dualadapt"), settings_of(without)) == switched


def test_peers_differ_from_dualadapt_in_the_strategy_alone():
    for name in ("source-only", "adabn", "fedavg-self-training", "fed-mcd", "fed-dann"):
        assert differing(settings_of("dualadapt"), settings_of(name)) == {"strategy"}


def test_only_the_references_break_privacy():
    assert {name for name in METHODS if METHODS[name].breaks_privacy} == set(SELECTIONS["references"])
    assert set(SELECTIONS["references"]) == {"mcd", "dann", "target-supervised"}


def differing(one: Settings, other: Settings) -> set[str]:
    """Keys in which two settings differ; the preset's name alone changes nothing."""
    other_config = other.run_config()
    return {key for key, value in one.run_config().items() if other_config[key] != value} - {"preset"}
