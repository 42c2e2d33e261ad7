"""Results as results.json holds them, with figures that can be added up by hand."""

import pytest

from fmtda.benchmarking.methods import METHODS


@pytest.fixture
def cell_of():
    """A finished cell of two domains, `svhn` and `usps`; accuracy and bytes are given."""

    def make(method: str, seed: int, svhn: float, usps: float, up: float | None = 17_500.0) -> dict:
        average = (svhn + usps) / 2
        courses = [(0, 20.0, 40.0), (1, (20 + svhn) / 2, (40 + usps) / 2), (2, svhn, usps)]
        return {
            "method": method,
            "seed": seed,
            "failure": None,
            "result": {
                "accuracy": {"svhn": svhn, "usps": usps},
                "average_accuracy": average,
                "plain_source_only": {"svhn": 10.0 + seed, "usps": 30.0 + seed},
                "uplink_bytes_per_client_round": up,
                "downlink_bytes_per_client_round": None if up is None else 2_880_000.0,
                "client_seconds_per_round": None if up is None else 0.5,
                "server_seconds_per_round": 2.0,
                "accuracy_by_round": [
                    {"round": n, "phase": "round", "accuracy": {"svhn": s, "usps": u}} for n, s, u in courses
                ],
            },
        }

    return make


@pytest.fixture
def results_of():
    """Results of these cells; rows for these methods, or for those that the cells have."""

    def make(cells: list[dict], methods: list[str] | None = None) -> dict:
        names = methods or list(dict.fromkeys(cell["method"] for cell in cells))
        return {
            "command": "fmtda benchmark --data digit-five --data-dir DIR",
            "data": "digit-five",
            "metric": "accuracy",
            "domains": ["svhn", "usps"],
            "machine": {"processor": "Abacus", "cores": 2, "memory_gib": 8.0},
            "methods": [
                {
                    "name": name,
                    "description": METHODS[name].description,
                    "group": METHODS[name].group,
                    "breaks_privacy": METHODS[name].breaks_privacy,
                }
                for name in names
            ],
            "cells": cells,
        }

    return make
