"""Federated multi-target domain adaptation on Flower: the one package that is installed, and its Python interface.

For notebooks: ``fmtda.load(run, domain="svhn")`` and ``fmtda.adapt(run, folder)``, see docs/python.md.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

if not Path(__file__).with_name("server").is_dir():  # a checkout or a bundle; installed, the rooms lie in this folder
    __path__.append(str(Path(__file__).parents[1]))

_WHERE = {
    "AdaptedModel": "fmtda.inference.adapted_model",
    "Prediction": "fmtda.inference.adapted_model",
    "adapt": "fmtda.inference.adapting",
    "load": "fmtda.inference.adapted_model",
}

__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    """Imported when asked for, so that the command line answers at once."""
    if name not in _WHERE:
        raise AttributeError(f"fmtda has no {name}; it has {', '.join(_WHERE)}")
    return getattr(import_module(_WHERE[name]), name)
