"""Tells how likely unseen molecules are under a model, whether they come back, and what the order of atoms matters.

One function a question, answered for each model in its own terms: GraphNVP has an exact density and an inverse, MPGVAE
a bound with parts and a posterior. Graphs are int8 (N, V, V), as in `generative.molecules`.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from fmtda.generative.graph_nvp import GraphNVP
from fmtda.generative.mpgvae import MPGVAE
from fmtda.generative.mpgvae import order_dependence as order_dependence_of

BATCH = 512
"""Molecules that are encoded at once."""


@torch.no_grad()
def likelihood(model: GraphNVP | MPGVAE, graphs: Tensor) -> dict[str, float]:
    """Take the likelihood's mean over the molecules, by the same noise each time.

    Returns
    -------
    dict
        GraphNVP: bits per dimension, and -log p in nats of the bonds and of the atoms given them. MPGVAE: the negative
        ELBO in nats with its parts.
    """
    generator = torch.Generator().manual_seed(0)
    if isinstance(model, GraphNVP):
        densities = [model.log_density(batch, generator) for batch in graphs.split(BATCH)]
        total = torch.cat([density.total for density in densities])
        bonds = torch.cat([density.bonds for density in densities]).mean().item()
        return {
            "bits per dimension": model.bits_per_dimension(total).mean().item(),
            "bonds, nats": -bonds,
            "atoms, nats": bonds - total.mean().item(),
        }
    bounds = [model.bound(batch, generator) for batch in graphs.split(BATCH)]
    atoms, bonds, divergence = (torch.cat(parts).mean().item() for parts in zip(*bounds, strict=True))
    return {
        "negative ELBO, nats": divergence - atoms - bonds,
        "atoms, nats": -atoms,
        "bonds, nats": -bonds,
        "divergence, nats": divergence,
    }


@torch.no_grad()
def reconstructed(model: GraphNVP | MPGVAE, parts: Iterable[Tensor]) -> dict[str, int]:
    """Count the molecules that come back exactly: from their latent vectors, or from the mean of the posterior."""
    generator = torch.Generator().manual_seed(2)
    count = same = 0
    for graphs in parts:
        for start in range(0, len(graphs), BATCH):
            batch = graphs[start : start + BATCH]
            if isinstance(model, GraphNVP):
                back = model.decode(model.encode(batch, generator))
            else:
                batch = model.ordered(batch)
                back = model.decode(model.encode(batch)[0], generator)
            count += len(batch)
            same += int((back == batch).all(dim=(1, 2)).sum())
    return {"molecules": count, "exactly": same}


def order_dependence(model: GraphNVP | MPGVAE, graphs: Tensor) -> dict[str, dict[str, float]]:
    """Take MPGVAE's negative ELBO in nats where the nodes are renumbered at random; nothing for other models."""
    if isinstance(model, GraphNVP):
        return {}
    return {"order_dependence": order_dependence_of(model, graphs, torch.Generator().manual_seed(4))._asdict()}
