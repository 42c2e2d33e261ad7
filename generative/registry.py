"""The generative models by name, and how one is built with seeded weights.

A new model is a file with a `RegisteredModel` and a line here, or an entry point of another package in the group
``fmtda.generative``.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from fmtda.protocol.registry import Registry, UnknownName

if TYPE_CHECKING:  # the names alone cost no import of torch
    from fmtda.generative.model import GenerativeModel, RegisteredModel


class MissingExtraError(ImportError):
    """A model needs packages that are not installed; the message says which, and how to install them."""


MODELS: Registry[RegisteredModel] = Registry(
    "fmtda.generative",
    {
        "ddpm": "fmtda.generative.ddpm:REGISTERED",
        "ncsn": "fmtda.generative.ncsn:REGISTERED",
        "graph-nvp": "fmtda.generative.graph_nvp:REGISTERED",
        "mpgvae": "fmtda.generative.mpgvae:REGISTERED",
    },
)


def build(name: str, settings: Any, seed: int) -> GenerativeModel:
    """Build a model of the registry with seeded weights; torch's global generator is left as it was.

    Parameters
    ----------
    name : str
        A name of `MODELS`.
    settings : object
        Of a run: its `model` is the model's own table.
    seed : int
        Seed of the initial weights; equal seeds give equal weights.

    Raises
    ------
    ValueError
        If the name is not in `MODELS`, or a setting does not fit.
    MissingExtraError
        If the model needs packages that are not installed.
    """
    check_installed(name)
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[name].build(settings)


def check_installed(name: str) -> None:
    """Refuse a model that is unknown or lacks its packages, without importing these: quick enough for a start.

    Raises
    ------
    ValueError, MissingExtraError
        As `build`.
    """
    try:
        packages = MODELS[name].packages
    except UnknownName as error:
        raise ValueError(f"model={name!r}: {error}") from None
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise MissingExtraError(
            f"{name} needs {', '.join(missing)}, not installed here; install the extra: pip install 'fmtda[generative]'"
        )
