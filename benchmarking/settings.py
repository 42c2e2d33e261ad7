"""Reads the settings of domain adaptation, the one workload whose methods are compared here."""

from collections.abc import Mapping

from fmtda.protocol.settings import AdaptationSettings
from fmtda.protocol.tables import Scalar, SettingsError
from fmtda.server.startup import effective_settings


def adaptation_settings(config: Mapping[str, Scalar]) -> AdaptationSettings:
    """Read a run config of domain adaptation, with every ``auto`` resolved and every name checked.

    Raises
    ------
    SettingsError, DataError
        As `fmtda.server.startup.effective_settings`, and for another workload.
    """
    settings = effective_settings(config)
    if not isinstance(settings, AdaptationSettings):
        raise SettingsError(f"workload={settings.workload}: only domain adaptation is measured here; leave it out")
    return settings
