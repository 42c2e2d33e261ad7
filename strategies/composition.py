"""Composes the settings of a run out of what was given: only here workload, algorithm and data are all known.

A run's settings are its workload's (`protocol.settings`) with the algorithm's table under its name, and with the
generative model's where there is one.
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field, create_model

from fmtda.domains.registry import family
from fmtda.generative.model import ModelSettings
from fmtda.generative.registry import MODELS
from fmtda.protocol.registry import UnknownName
from fmtda.protocol.settings import PRESETS, AdaptationSettings, GenerativeSettings, RunSettings, names_in
from fmtda.protocol.tables import AUTO, Scalar, SettingsError, flattened, resolved
from fmtda.strategies.registry import ALGORITHMS, USUAL_STRATEGY, algorithm, algorithms

ADAPTATION = "adaptation"
"""The workload that is no generative model."""


def workloads() -> tuple[str, ...]:
    """Return the names of all workloads."""
    return (ADAPTATION, *MODELS)


def settings_of(workload: str, strategy: str) -> type[RunSettings]:
    """Compose the settings of a workload's runs under an algorithm.

    Raises
    ------
    SettingsError
        If there is no such workload or algorithm, or they don't go together.
    """
    if workload not in workloads():
        raise SettingsError(f"workload={workload}: no such workload; allowed are {', '.join(workloads())}")
    algorithm(strategy)  # whether it may be named by its place differs from call to call
    return _composed(workload, strategy)


@cache
def _composed(workload: str, strategy: str) -> type[RunSettings]:
    base: type[RunSettings] = AdaptationSettings if workload == ADAPTATION else GenerativeSettings
    chosen = algorithm(strategy)
    if chosen.kind != base.kind:
        allowed = ", ".join(each.name for each in algorithms(base.kind))
        raise SettingsError(f"strategy={strategy}: workload={workload} is not what it trains; allowed are {allowed}")
    if chosen.parameters.model_fields:
        own = Field(alias=chosen.name)
    else:  # an empty table is none for people, and still says what its class says
        own = Field(default=chosen.parameters(), exclude=True)
    tables: dict[str, Any] = {"algorithm": (chosen.parameters, own)}
    if workload != ADAPTATION:
        tables["model"] = (_model_settings(workload), Field(alias=workload))
    return create_model(base.__name__, __base__=base, __doc__=base.__doc__, **tables)


def _model_settings(workload: str) -> type[ModelSettings]:
    """The table of settings of a generative model."""
    try:
        return MODELS[workload].settings
    except UnknownName as error:
        raise SettingsError(f"workload={workload}: {error}") from None


def read_settings(config: Mapping[str, Scalar]) -> RunSettings:
    """Make the settings of a run out of scalars by dotted keys in which nothing is ``auto`` any more.

    Raises
    ------
    SettingsError
        For an unknown key, a missing one, a wrong type or a value out of range; one line per problem.
    """
    workload = str(config.get("workload", ADAPTATION))
    return settings_of(workload, str(config.get("strategy", ""))).validated(own_keys(config))


@lru_cache(maxsize=8)
def settings_in(text: str) -> RunSettings:
    """Make the settings out of the JSON text in a message; read once however many messages bring the same.

    Raises
    ------
    SettingsError
        As `read_settings`, and for a text that is no JSON object.
    """
    try:
        tables = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"the settings in the message are no JSON that can be read: {error}") from None
    if not isinstance(tables, dict):
        raise SettingsError(f"the settings in the message are a JSON {type(tables).__name__}, expected an object")
    return read_settings(dict(flattened(tables)))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs; no key may come twice, nor hold the dot that stands between tables."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice")
    if dotted := [key for key in found if "." in key]:
        raise ValueError(f"{dotted[0]}: a dot is in no name")
    return found


def resolve(config: Mapping[str, Scalar]) -> RunSettings:
    """Make the settings of a run out of what the user gave: every ``auto`` becomes what data, preset or workload say.

    Raises
    ------
    SettingsError, DataError
        As `read_settings`, and if the data that are to decide can't be read.
    """
    given = {key: value for key, value in config.items() if value != AUTO}
    workload = str(given.get("workload", ADAPTATION))
    kind = AdaptationSettings if workload == ADAPTATION else GenerativeSettings
    strategy = str(given.get("strategy", USUAL_STRATEGY[kind.kind]))
    settings_type = settings_of(workload, strategy)
    given = {
        **own_keys({**given, "workload": workload, "strategy": strategy}),
        "workload": workload,
        "strategy": strategy,
    }
    usual = settings_type.usual(given)
    if workload != ADAPTATION:
        usual = {"data.name": "digits", **usual, **_model_settings(workload).usual}
    data = family(str(given.get("data.name", usual["data.name"])))
    of_data = {key.removeprefix("data."): value for key, value in given.items() if key.startswith("data.")}
    folder = Path(str(of_data["dir"])) if of_data.get("dir") else None
    if workload == ADAPTATION:
        hints = data.defaults(folder, of_data)
    else:  # without a word from the user, the clients share the source's domain
        hints = data.defaults(folder, {"targets": "given or the source", **of_data})
        hints["targets"] = hints["source"]
    usual |= algorithm(strategy).usual
    preset = str(given.get("preset", PRESETS[0]))
    values = resolved(
        settings_type, given, hints=hints, preset=preset if preset in PRESETS else PRESETS[0], usual=usual
    )
    late = names_in(values.get("simulation.late", ""))
    from_the_start = set(names_in(values.get("data.targets", ""))) - set(late)
    values.setdefault("clients", settings_type.usual_clients(len(from_the_start)))
    return settings_type.validated(values)


def every_default() -> dict[str, Scalar]:
    """List every key of every workload and algorithm of ours with its default: pyproject.toml's table."""
    found: dict[str, Scalar] = {}
    for settings_type in _every_settings_type():
        found = {**settings_type.defaults(), **found}
    return {**found, "workload": ADAPTATION, "strategy": AUTO}


def own_keys(config: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Leave out the keys that a run's workload and algorithm don't have, and that hold their default.

    Flower passes every key of ``[tool.flwr.app.config]`` to every run.

    Raises
    ------
    SettingsError
        Naming each key of another workload or algorithm that was given a value.
    """
    workload, strategy = str(config.get("workload", ADAPTATION)), str(config.get("strategy", ""))
    known = settings_of(workload, strategy).by_key()
    foreign = [key for key in config if key not in known]
    if not foreign:
        return dict(config)
    defaults = every_default()
    problems = [
        f"{key}={config[key]}: workload={workload} with strategy={strategy} has no such key, {_whose(key)} has; "
        "leave it out"
        for key in foreign
        if key in defaults and not _equal(config[key], defaults[key])
    ]
    if problems:
        raise SettingsError("\n".join(problems))
    return {key: value for key, value in config.items() if key in known or key not in defaults}


def _every_settings_type() -> Iterator[type[RunSettings]]:
    for each in algorithms("adaptation"):
        yield settings_of(ADAPTATION, each.name)
    for workload in MODELS:
        try:
            _model_settings(workload)
        except SettingsError as error:  # of another package, which is nobody's business who trains something else
            warnings.warn(f"left out: {error}", stacklevel=2)
            continue
        for each in algorithms("generative"):
            yield settings_of(workload, each.name)


def _whose(key: str) -> str:
    """Who has a key, for people."""
    table = key.partition(".")[0]
    if table in ALGORITHMS:
        return f"strategy={table}"
    return ", ".join(workload for workload in workloads() if key in _first_of(workload).by_key()) or "another workload"


def _first_of(workload: str) -> type[RunSettings]:
    kind = "adaptation" if workload == ADAPTATION else "generative"
    return settings_of(workload, USUAL_STRATEGY[kind])


def _equal(value: Scalar, default: Scalar) -> bool:
    """Whether a value means the default, whatever TOML or the command line made of it: true and "true", 1 and 1.0."""
    if str(value).lower() == str(default).lower():
        return True
    try:
        return float(value) == float(default)
    except ValueError:
        return False
