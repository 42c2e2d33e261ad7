"""The workloads by name with their settings, and the one run config that serves them all.

Flower passes every key of ``[tool.flwr.app.config]`` to every run, so keys that only other workloads have are left out
here where they hold their default, and refused otherwise.
"""

from collections.abc import Mapping

from fmtda.protocol.generative_settings import DDPMSettings, GraphNVPSettings, MPGVAESettings, NCSNSettings
from fmtda.protocol.settings import RunSettings, Scalar, Settings, SettingsError

WORKLOADS: dict[str, type[RunSettings]] = {
    "adaptation": Settings,
    "ddpm": DDPMSettings,
    "ncsn": NCSNSettings,
    "graph-nvp": GraphNVPSettings,
    "mpgvae": MPGVAESettings,
}
"""A new workload is a class of settings and a line here."""


def run_config_defaults() -> dict[str, Scalar]:
    """Every key of every workload with its default: pyproject.toml's table."""
    every = {key: value for settings in WORKLOADS.values() for key, value in settings.defaults().items()}
    return {**every, "workload": "adaptation"}


def settings_class(config: Mapping[str, Scalar]) -> type[RunSettings]:
    """The settings that a run config is meant for; adaptation's where it names no workload.

    Raises
    ------
    SettingsError
        If there is no such workload.
    """
    workload = config.get("workload", "adaptation")
    if workload not in WORKLOADS:
        raise SettingsError(f"workload={workload}: no such workload; allowed are {', '.join(WORKLOADS)}")
    return WORKLOADS[str(workload)]


def own_keys(config: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """A run config without the keys that its workload does not have and that hold their default.

    Raises
    ------
    SettingsError
        Naming each key of another workload that was given a value.
    """
    known, defaults = settings_class(config).by_key(), run_config_defaults()
    foreign = {key: value for key, value in config.items() if key in defaults and key not in known}
    if given := {key: value for key, value in foreign.items() if not _equal(value, defaults[key])}:
        raise SettingsError("\n".join(_not_for(config.get("workload", "adaptation"), *item) for item in given.items()))
    return {key: value for key, value in config.items() if key not in foreign}


def read_settings(config: Mapping[str, Scalar], family_defaults: Mapping[str, Scalar] | None = None) -> RunSettings:
    """The settings of a run config of any workload, as `RunSettings.from_run_config` makes them.

    Raises
    ------
    SettingsError
        As `own_keys`, and for an unknown key, a wrong type or a value out of range.
    """
    return settings_class(config).from_run_config(own_keys(config), family_defaults)


def _not_for(workload: Scalar, key: str, value: Scalar) -> str:
    users = [name for name, settings in WORKLOADS.items() if key in settings.by_key()]
    return f"{key}={value}: workload={workload} has no such key, {', '.join(users)} has; leave it out"


def _equal(value: Scalar, default: Scalar) -> bool:
    """Whether a value means the default, whatever TOML or the command line made of it: true and "true", 1 and 1.0."""
    if str(value).lower() == str(default).lower():
        return True
    try:
        return float(value) == float(default)
    except ValueError:
        return False
