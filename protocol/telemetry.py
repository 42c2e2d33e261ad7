"""Switches off what libraries would tell their makers, and their look-ups of new versions, unless the owner asks.

An owner asks by setting the variable himself: what is set already stays.
"""

import os

FLOWER_OFF = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
"""Read by Flower 1.41 and 1.42: else each program of it sends an event, and asks once a day for the newest version."""

OFF = {
    **FLOWER_OFF,
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""The same of Ray, of the hub that pretrained networks come from, and of the tracker MLflow."""


def switch_off() -> None:
    """Set the variables for this process and those it starts; call it before those libraries are imported."""
    for variable, value in OFF.items():
        os.environ.setdefault(variable, value)
