"""The algorithms by name: those there are, those that aren't, other people's, and that each is whole."""

import os
import re
import subprocess
import sys

import pytest

from fmtda.adaptation.registry import build
from fmtda.protocol.tables import SettingsError
from fmtda.strategies.algorithm import Algorithm
from fmtda.strategies.fed_mcd import FedMCD
from fmtda.strategies.generative import GenerativeAlgorithm
from fmtda.strategies.registry import ADAPTING, GENERATING, USUAL_STRATEGY, algorithm, algorithms
from fmtda.strategies.source_only import NobodyTrains

ALL = {**ADAPTING, **GENERATING}
OURS = ", ".join(ALL)


class OtherPeoples(FedMCD):
    """An algorithm of another package."""

    name = "other-peoples"


@pytest.mark.parametrize("name", ALL)
def test_a_known_name_is_the_algorithm_of_that_name(name):
    found = algorithm(name)
    assert found.name == name
    assert found.title
    assert found is algorithm(name)  # it holds no state


def test_each_kind_of_workloads_has_its_own():
    assert [each.name for each in algorithms("adaptation")] == list(ADAPTING)
    assert [each.name for each in algorithms("generative")] == list(GENERATING)
    assert {each.name for each in algorithms()} >= set(ALL)
    assert all(isinstance(each, Algorithm) for each in algorithms("adaptation"))
    assert all(isinstance(each, GenerativeAlgorithm) for each in algorithms("generative"))
    assert {kind: algorithm(name).kind for kind, name in USUAL_STRATEGY.items()} == {k: k for k in USUAL_STRATEGY}


@pytest.mark.parametrize(
    ("name", "hint"),
    [("fedprocks", "did you mean fedprox? "), ("", ""), ("DualAdapt", "did you mean dualadapt? "), ("zzz", "")],
)
def test_an_unknown_name_is_refused_with_those_there_are(name, hint):
    with pytest.raises(SettingsError) as caught:
        algorithm(name)
    assert str(caught.value) == (f"strategy={name}: no such name; {hint}allowed are {OURS}, or package.module:object")


def test_another_packages_class_is_named_by_its_place():
    assert isinstance(algorithm(f"{__name__}:OtherPeoples"), OtherPeoples)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nowhere.at_all:Algorithm", "can't be imported (No module named 'nowhere'); is its package installed here"),
        (f"{__name__}:Nothing", "can't be imported (module "),
        (":Nothing", "can't be imported (Empty module name)"),
        ("fmtda.strategies.algorithm:count", "this is no algorithm (a class of fmtda.strategies.algorithm)"),
        ("fmtda.strategies.algorithm:Algorithm", "this algorithm lacks server"),
        ("..above:Algorithm", "can't be imported (TypeError: "),
        ("fmtda.strategies.source_only:NobodyTrains", "this is no algorithm (a class of"),
    ],
)
def test_a_place_without_an_algorithm_is_refused_in_one_line(place, said):
    with pytest.raises(SettingsError, match=re.escape(f"strategy={place}: ")) as caught:
        algorithm(place)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ADAPTING)
def test_clients_train_wherever_the_server_asks_them_to(name, settings_of):
    made = algorithm(name).server(settings_of({"strategy": name}), build("small-cnn", 10, (3, 8, 8), 0), None)
    assert isinstance(made, NobodyTrains) == (type(algorithm(name)).train is Algorithm.train)


@pytest.mark.parametrize(
    ("attribute", "method"), [("joins", "join"), ("personalises", "personalise"), ("adapts_outside", "adapt_outside")]
)
@pytest.mark.parametrize("name", ADAPTING)
def test_what_an_algorithm_says_that_it_can_it_can(name, attribute, method):
    its = algorithm(name)
    assert getattr(its, attribute) == (getattr(type(its), method) is not getattr(Algorithm, method))


def test_rows_of_the_benchmark_have_names_of_their_own():
    names = [row.name for each in algorithms("adaptation") for row in each.rows]
    assert len(set(names)) == len(names)
    assert set(ADAPTING) <= set(names)


PLUG_INS = """
[fmtda.strategies]
broken = nowhere:Algorithm
misnamed = fmtda.strategies.adabn:AdaBN
[fmtda.generative]
broken-model = nowhere:REGISTERED
"""

RESOLVING = """
from fmtda.protocol.tables import SettingsError
from fmtda.strategies.composition import every_default, resolve
from fmtda.strategies.registry import algorithms
print(resolve(every_default()).strategy, len(algorithms()))
for given in ({"strategy": "broken"}, {"strategy": "misnamed"}, {"workload": "broken-model"}):
    try:
        resolve(given)
    except SettingsError as error:
        print(error)
"""


def test_another_packages_fault_is_told_and_stops_nobody_elses_run(tmp_path):
    """In a process of its own, since installed packages are looked at once; as `flwr run` it passes every key."""
    about = tmp_path / "plugins-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plugins\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(PLUG_INS)
    done = subprocess.run(
        [sys.executable, "-c", RESOLVING],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    first, *refused = done.stdout.splitlines()
    assert first == f"dualadapt {len(ALL)}"
    named = ["strategy=broken", "strategy=misnamed", "workload=broken-model"]
    assert [line.partition(": ")[0] for line in refused] == named
    assert "left out: strategy=broken: nowhere:Algorithm can't be imported" in done.stderr
    assert "left out: strategy=misnamed: its class calls itself adabn" in done.stderr
