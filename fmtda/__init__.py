"""The face of fmtda: command line, simulation launcher, and how a run is shown and used. Nothing imports it.

For notebooks: ``fmtda.AdaptedModel.load(run, domain="svhn")`` and ``fmtda.adapt(run, folder)``, see docs/python.md.
"""

from importlib import import_module
from typing import Any

_WHERE = {"AdaptedModel": "fmtda.adapted_model", "Prediction": "fmtda.adapted_model", "adapt": "fmtda.adapting"}

__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    """Imported when asked for, so that the command line answers at once."""
    if name not in _WHERE:
        raise AttributeError(f"fmtda has no {name}; it has {', '.join(_WHERE)}")
    return getattr(import_module(_WHERE[name]), name)
