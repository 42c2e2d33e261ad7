"""The owner of one client does harm to nobody else: a few draws of the attacks, and that harm would be seen."""

from collections import Counter

import numpy as np
import pytest

from benchmarks.attacks import (
    NAMES,
    SMALL,
    STAGES,
    TEXTS,
    Attack,
    Outcome,
    attack_of,
    attacks,
    elements_of,
    judged,
    played,
    script_ran,
    table,
)
from fmtda.benchmarking.settings import adaptation_settings

DRAWS = 6


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    settings = adaptation_settings(SMALL)
    found = list(attacks(settings, range(DRAWS), 1, tmp_path_factory.mktemp("attacks") / "sandbox"))
    return [row for row, _ in found]


def test_all_holds(rows):
    assert [row for row in rows if row["broken"]] == []
    assert len(rows) == DRAWS
    assert any(row["refused"] for row in rows)
    assert f"| {rows[0]['stage']} |" in table(rows)


def test_what_is_refused_is_told_with_the_clients_name(rows):
    said = [row["said"][0] for row in rows if row["refused"] and row["said"]]
    assert said
    assert all("pen/0001" in line or "node 4" in line for line in said)


def test_the_grammar_reaches_every_stage_and_kind(tmp_path):
    drawn = [attack_of(np.random.default_rng([0, number]), tmp_path) for number in range(500)]
    stages = Counter(attack.stage for attack in drawn)
    assert set(stages) == set(STAGES) and min(stages.values()) > 50
    assert len({attack.what for attack in drawn}) > 200
    assert any(str(tmp_path) in attack.what for attack in drawn)
    assert len(TEXTS) + len(NAMES) > 40


@pytest.fixture
def honest():
    return Outcome(finished=True, figures={"blend": [{"mean": 50.0}, {"mean": 50.0}]}, files={"config.toml"})


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"config.toml", "uploads/x"}},
        {"elements": Counter({"script ": 1})},
        {"figures": {"blend": [{"mean": 50.0}, {"mean": 51.0}]}},
        {"broken": ["printed '\\x1b'"]},
    ],
)
def test_harm_is_seen(honest, change):
    name_only = Attack("training", "x", lambda sent, honest: honest)
    assert judged(name_only, honest, honest, honest)["broken"] == []
    harmed = Outcome(**{"finished": True, "figures": honest.figures, "files": honest.files, **change})
    assert judged(name_only, harmed, honest, honest)["broken"]


def test_what_right_arrays_change_is_measured(honest):
    arrays = Attack("training", "x", lambda sent, honest: honest, arrays=True)
    moved = Outcome(finished=True, figures={"blend": [{"mean": 47.5}, {"mean": 50.0}]}, files=honest.files)
    row = judged(arrays, moved, honest, honest)
    assert (row["broken"], row["largest_change"]) == ([], 2.5)


def test_a_run_that_ends_is_seen(tmp_path):
    settings = adaptation_settings({**SMALL, "clients": 5, "min-clients": 5, "join-timeout": 0.1})
    gone = Attack("introduction", "silence", lambda sent, honest: None)
    outcome = played(settings, gone, tmp_path / "sandbox", showing=False)
    assert not outcome.finished
    assert outcome.broken[0].startswith("the run ended: ")


def test_elements_are_counted_by_their_attributes():
    assert elements_of("<p a=1><p a=2><img src=x onerror=y>") == Counter({"p a": 2, "img onerror src": 1})


def test_a_script_leaves_its_mark_in_the_browser(tmp_path):
    page = '<!DOCTYPE html><html data-drawn="yes"><body><script>{}</script></body></html>'
    try:
        assert not script_ran(page.format(""), tmp_path)
    except RuntimeError as error:
        pytest.skip(str(error))
    assert script_ran(page.format("document.documentElement.dataset.hacked='yes'"), tmp_path)
