"""Lists the generative models by name, what each needs installed, and how a new one is listed."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch

from fmtda.generative import ddpm, graph_nvp, mpgvae, ncsn
from fmtda.generative.example_kind import ExampleKind
from fmtda.generative.images import Images
from fmtda.generative.model import GenerativeModel
from fmtda.generative.molecule_graphs import MoleculeGraphs


class MissingExtraError(ImportError):
    """This is raised where a model needs packages that are not installed; it says which, and how to install them."""


class Entry(NamedTuple):
    """Describes a model of the registry.

    Attributes
    ----------
    build : callable
        From settings to the model, weights drawn from torch's global generator. Settings are any object with the
        attributes that the builder's docstring lists.
    packages : tuple of str
        Names under which it imports what the extra `generative` brings.
    kind : ExampleKind
        What its examples are.
    """

    build: Callable[[Any], GenerativeModel]
    packages: tuple[str, ...]
    kind: ExampleKind


MODELS: dict[str, Entry] = {
    "ddpm": Entry(ddpm.build, ("diffusers",), Images()),
    "ncsn": Entry(ncsn.build, ("diffusers",), Images()),
    "graph-nvp": Entry(graph_nvp.build, ("rdkit",), MoleculeGraphs()),
    "mpgvae": Entry(mpgvae.build, ("rdkit", "torch_geometric"), MoleculeGraphs()),
}


def build(name: str, settings: Any, seed: int) -> GenerativeModel:
    """Build a model of the registry with seeded weights; torch's global generator is left as it was.

    Parameters
    ----------
    name : str
        A key of `MODELS`.
    settings : object
        With the attributes that the model's builder reads.
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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[name].build(settings)


def check_installed(name: str) -> None:
    """Refuse a model that is unknown or lacks its packages, without importing them: quick enough for a start.

    Raises
    ------
    ValueError, MissingExtraError
        As `build`.
    """
    if name not in MODELS:
        raise ValueError(f"model={name!r} is unknown; allowed are {', '.join(MODELS)}")
    missing = [package for package in MODELS[name].packages if find_spec(package) is None]
    if missing:
        raise MissingExtraError(
            f"{name} needs {', '.join(missing)}, not installed here; install the extra: pip install 'fmtda[generative]'"
        )
