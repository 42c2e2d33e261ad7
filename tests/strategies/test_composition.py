"""A run's settings out of what was given: composed by workload and algorithm, and what `auto` becomes."""

import tomllib
from pathlib import Path

import pytest

from fmtda.domains.registry import FAMILIES, family
from fmtda.generative.registry import MODELS
from fmtda.protocol.records import config_record, read_config
from fmtda.protocol.settings import AdaptationSettings, GenerativeSettings, Parameters
from fmtda.protocol.tables import AUTO, SettingsError, nested
from fmtda.strategies.composition import (
    every_default,
    own_keys,
    read_settings,
    resolve,
    settings_in,
    settings_of,
    workloads,
)
from fmtda.strategies.dualadapt.parameters import EXTRAS, DualAdaptParameters
from fmtda.strategies.fed_dann import FedDANN
from fmtda.strategies.registry import ADAPTING, GENERATING, algorithm
from fmtda.strategies.source_only import SourceOnly

RUNS = [("adaptation", name) for name in ADAPTING] + [(model, name) for model in MODELS for name in GENERATING]
GENERATIVE = list(MODELS)
BY_PRESET = {entry.key for entry in settings_of("adaptation", "dualadapt").fields() if entry.meaning.by_preset}
PERSONALISE = "dualadapt.personalise.on"


class Renamed(FedDANN):
    """Another package's algorithm, with a table of its own name."""

    name = "renamed"


class LooksAhead(Parameters):
    """Nothing to choose."""

    needs_rounds = True


class LookingAhead(SourceOnly):
    """Another one, that has no table but looks ahead to the last round."""

    name = "looking-ahead"
    parameters = LooksAhead


def refusal(config, read=resolve):
    with pytest.raises(SettingsError) as caught:
        read(config)
    return str(caught.value)


def test_pyproject_lists_every_key_with_its_default():
    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert pyproject["tool"]["flwr"]["app"]["config"] == nested(every_default())


@pytest.mark.parametrize(("workload", "strategy"), RUNS)
def test_all_runs_agree_on_the_defaults_of_the_keys_that_they_share(workload, strategy):
    defaults = settings_of(workload, strategy).defaults()
    assert {key: defaults[key] for key in defaults if key != "workload"}.items() <= every_default().items()


@pytest.mark.parametrize(("workload", "strategy"), RUNS)
def test_all_of_flowers_defaults_together_mean_the_same_as_no_key_at_all(workload, strategy):
    run = {"workload": workload, "strategy": strategy}
    settings = resolve({**every_default(), **run})
    assert settings == resolve(run)
    assert [key for key, value in settings.flat().items() if value == AUTO] == ["device"]


@pytest.mark.parametrize("workload", workloads())
def test_a_run_without_a_strategy_has_its_workloads_usual_one(workload):
    settings = resolve({"workload": workload, "strategy": AUTO})
    assert settings.strategy == ("dualadapt" if workload == "adaptation" else "fedavg")
    assert type(settings) is settings_of(workload, settings.strategy)


def test_adaptation_is_what_a_run_config_without_a_workload_means():
    settings = resolve({})
    assert isinstance(settings, AdaptationSettings)
    assert (settings.workload, settings.data.name, settings.rounds) == ("adaptation", "digits", 3)
    assert isinstance(resolve({"workload": "ddpm"}), GenerativeSettings)


@pytest.mark.parametrize(("workload", "strategy"), RUNS)
def test_a_run_has_the_table_of_its_algorithm_and_of_its_model_under_their_names(workload, strategy):
    settings = resolve({"workload": workload, "strategy": strategy})
    assert isinstance(settings.algorithm, algorithm(strategy).parameters)
    tables = {key.partition(".")[0] for key in settings.flat() if "." in key}
    own = {strategy} if algorithm(strategy).parameters.model_fields else set()
    assert tables & {*ADAPTING, *GENERATING, *MODELS} == own | ({workload} - {"adaptation"})
    assert not tables & {"algorithm", "model"}
    if workload != "adaptation":
        assert isinstance(settings.model, MODELS[workload].settings)


def test_an_algorithm_named_by_its_place_brings_its_table():
    place = f"{__name__}:{Renamed.__name__}"
    settings = resolve({"strategy": place, "renamed.local-steps": 7})
    assert settings.algorithm.local_steps == 7
    assert settings.flat()["strategy"] == place
    assert read_settings(settings.flat()) == settings
    assert not settings.rounds_may_grow


def test_an_algorithm_without_a_table_is_asked_whether_it_looks_ahead_all_the_same():
    settings = resolve({"strategy": f"{__name__}:{LookingAhead.__name__}"})
    assert not settings.rounds_may_grow
    assert not [key for key in settings.flat() if key.startswith("looking-ahead")]
    assert read_settings(settings.flat()) == settings


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"workload": "cooking"},
            "workload=cooking: no such workload; allowed are adaptation, ddpm, ncsn, graph-nvp, mpgvae",
        ),
        ({"strategy": "dualadpt"}, "strategy=dualadpt: no such name; did you mean dualadapt? allowed are source-only"),
        (
            {"strategy": "fedprox"},
            "strategy=fedprox: workload=adaptation is not what it trains; allowed are source-only, adabn, "
            "fedavg-self-training, fed-mcd, fed-dann, dualadapt",
        ),
        (
            {"workload": "ncsn", "strategy": "dualadapt"},
            "strategy=dualadapt: workload=ncsn is not what it trains; allowed are fedavg, fedprox, fedavgm, fedadam, "
            "pooled-data",
        ),
    ],
)
def test_a_workload_and_an_algorithm_that_there_are_not_are_refused_with_those_there_are(config, said):
    assert refusal(config).startswith(said)
    assert "\n" not in refusal(config)


@pytest.mark.parametrize(
    ("config", "key", "whose"),
    [
        ({"workload": "ddpm"}, "preset=paper", "adaptation"),
        ({"workload": "ddpm"}, "pretraining.steps=3", "adaptation"),
        ({"workload": "ddpm"}, "dualadapt.guard=false", "strategy=dualadapt"),
        ({"workload": "ncsn"}, "ddpm.timesteps=10", "ddpm"),
        ({}, "training.steps=3", "ddpm, ncsn, graph-nvp, mpgvae"),
        ({}, "fed-mcd.local-steps=3", "strategy=fed-mcd"),
        ({"strategy": "fed-mcd"}, "dualadapt.components=3", "strategy=dualadapt"),
    ],
)
def test_a_key_of_another_run_is_refused_with_who_has_it_unless_it_holds_its_default(config, key, whose):
    name, _, value = key.partition("=")
    run = {"workload": "adaptation", "strategy": "dualadapt" if "workload" not in config else "fedavg", **config}
    said = (
        f"{key}: workload={run['workload']} with strategy={run['strategy']} has no such key, {whose} has; leave it out"
    )
    assert refusal({**config, name: value}) == said
    assert resolve({**config, name: every_default()[name]}) == resolve(config)


def test_several_foreign_keys_get_a_line_each():
    lines = refusal({"fedprox.mu": 1.0, "ddpm.width": 8}).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["fedprox.mu=1.0", "ddpm.width=8"]


@pytest.mark.parametrize(("key", "value"), [("data.hold-out", "0.1"), ("data.hold-out", 0.1), ("network.name", AUTO)])
@pytest.mark.parametrize("more", [{}, {"dualadapt.cache-features": "true", "fedavgm.learning-rate": 1}])
def test_a_default_counts_as_one_in_whatever_type_it_comes(key, value, more):
    run = {"workload": "ddpm", "strategy": "fedavg"}
    assert own_keys({**run, key: value, **more}) == run


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("components", "did you mean dualadapt.components?"),
        ("dualadapt.component", "did you mean dualadapt.components"),
        ("data", "this is a table; its keys are data.name, "),
        ("network", "this is a table; its keys are network.name"),
        ("Rounds", "did you mean rounds"),
        ("client-learning-rate", "did you mean dualadapt.client-learning-rate"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_ones(key, advice):
    message = refusal({key: 1})
    assert message.startswith(f"{key}: no such key; {advice}")
    assert "\n" not in message


def test_every_bad_key_gets_its_own_line():
    lines = refusal({"rounds": 0, "colour": 1, "fraction": 2}).splitlines()
    assert sorted(line.partition(":")[0] for line in lines) == ["colour", "fraction=2", "rounds=0"]


def test_what_a_run_was_made_of_must_be_whole_to_be_read_again():
    flat = resolve({"seed": 3}).flat()
    assert read_settings(flat) == resolve({"seed": 3})
    del flat["rounds"], flat["dualadapt.client-steps"]
    assert refusal(flat, read_settings).splitlines() == [
        "rounds: nothing decides this here; give a value",
        "dualadapt.client-steps: nothing decides this here; give a value, or the data's family says its hint "
        '"head-steps"',
    ]


@pytest.mark.parametrize(("workload", "strategy"), RUNS)
def test_a_message_carries_the_settings_of_any_run(workload, strategy):
    settings = resolve({"workload": workload, "strategy": strategy, "seed": 5, "data.alpha": 0.1})
    text, server_round = read_config(config_record(settings, 4))
    assert server_round == 4
    assert settings_in(text) == settings
    assert type(settings_in(text)) is settings_of(workload, strategy)


@pytest.mark.parametrize("name", ["digits", "digit-five"])
@pytest.mark.parametrize("strategy", ADAPTING)
def test_auto_becomes_what_the_data_say(name, strategy):
    hints = family(name).defaults()
    settings = resolve({"data.name": name, "strategy": strategy})
    flat = settings.flat()
    taken = {e.key: hints[e.meaning.by_data] for e in type(settings).fields() if e.meaning.by_data in hints}
    assert {key: flat[key] for key in taken} == taken
    assert {"data.source", "data.targets", "data.classes", "data.input-shape", "network.name"} <= set(taken)


def test_every_hint_of_the_data_is_a_setting_of_some_run():
    from fmtda.domains.family import HINTS

    asked = {entry.meaning.by_data for run in RUNS for entry in settings_of(*run).fields()} - {""}
    assert asked == set(HINTS)
    assert "digits" in FAMILIES


@pytest.mark.parametrize("workload", GENERATIVE)
def test_auto_becomes_what_is_usual_for_the_model(workload):
    usual = {"data.name": "digits", **MODELS[workload].settings.usual}
    settings = resolve({"workload": workload})
    flat = settings.flat()
    hints = family(settings.data.name).defaults()
    of_data = {entry.key for entry in type(settings).fields() if entry.meaning.by_data in hints}
    assert {key: flat[key] for key in usual if key not in of_data} == {
        key: value for key, value in usual.items() if key not in of_data
    }
    assert settings.data.targets == hints["source"]


def test_data_say_more_than_what_is_usual_for_the_model():
    turns = {name: resolve({"workload": "graph-nvp", "data.name": name}).model for name in ("fragments", "zinc250k")}
    assert (turns["fragments"].adjacency_turns, turns["zinc250k"].adjacency_turns) == (3, 1)


def test_preset_paper_switches_every_extra_off():
    paper = resolve({"preset": "paper"}).flat()
    assert {paper[key] for key in (*EXTRAS.values(), PERSONALISE)} == {False}
    assert paper["dualadapt.robust-share"] == 0


def test_preset_default_switches_every_extra_on_but_personalise():
    default = resolve({}).flat()
    assert {default[key] for key in EXTRAS.values()} == {True}
    assert default["dualadapt.robust-share"] == 0.2
    assert default[PERSONALISE] is False


def test_what_is_called_an_extra_is_what_the_presets_decide():
    fields = settings_of("adaptation", "dualadapt").by_key()
    assert {key for key, field in fields.items() if field.description.startswith("extra:")} == BY_PRESET
    assert BY_PRESET == {*EXTRAS.values(), "dualadapt.robust-share"}


def test_a_key_that_is_given_wins_over_preset_and_family():
    given = resolve({"preset": "paper", "dualadapt.guard": True, "dualadapt.client-steps": 7})
    own = given.algorithm
    assert isinstance(own, DualAdaptParameters)
    assert (own.guard, given.inputs.standardise, own.client_steps) == (True, False, 7)


def test_auto_clients_are_one_for_each_target():
    targets = ("pen", "pen, blend", "pen,blend,street")
    assert [resolve({"data.targets": each, "clients": AUTO}).clients for each in targets] == [1, 2, 3]
    assert resolve({"data.targets": "pen,blend", "clients": 5}).clients == 5


def test_auto_clients_leave_out_those_that_join_late():
    config = {"data.targets": "pen,blend,street", "simulation.late": "street", "clients": AUTO}
    assert resolve(config).clients == 2


@pytest.mark.parametrize(("targets", "clients"), [("pen", 4), ("pen,blend", 4), ("a,b,c,d,e", 5)])
def test_of_a_generative_model_there_are_four_clients_or_one_a_target(targets, clients):
    assert resolve({"workload": "ddpm", "data.targets": targets}).clients == clients


@pytest.mark.parametrize(
    ("strategy", "server"),
    [
        ("fedavgm", {"fedavgm.learning-rate": 1.0, "fedavgm.momentum": 0.9}),
        ("fedadam", {"fedadam.learning-rate": 0.01, "fedadam.tau": 1e-3}),
        ("fedprox", {"fedprox.mu": 0.01}),
    ],
)
def test_a_servers_step_size_is_its_strategys_own(strategy, server):
    flat = resolve({"workload": "ddpm", "strategy": strategy}).flat()
    assert {key: flat[key] for key in server} == server
    changed = {key: value / 2 for key, value in server.items()}
    assert changed.items() <= resolve({"workload": "ddpm", "strategy": strategy, **changed}).flat().items()


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
    assert resolve({"workload": workload, "strategy": strategy}).training.moments == moments
