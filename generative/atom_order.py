"""Finds an order of the atoms that a graph gives itself: whatever order they come in, they get the same one.

Each atom gets a colour that says what it is and what surrounds it, by colour refinement (Weisfeiler and Leman 1968):
its own and its neighbours' colours are hashed again and again. Where atoms share a colour, one of them is set apart,
and the refinement goes on, until no two are alike. The order is that of a depth-first walk along the bonds, as in a
SMILES: it begins at an atom with few bonds, and goes to neighbours with few bonds first.

Two graphs that differ in the order of their atoms alone come out equal as long as atoms of one refined colour are
symmetric, which colour refinement can't promise for every graph: molecules with such atoms are rare.

Hashes are int64 and wrap around, so that sums do not depend on the order of what is added.

Shapes: B graphs of V nodes, int8 (B, V, V) as in `generative.molecules`.
"""

import torch
from torch import Tensor

# Odd 63-bit numbers without a pattern: digits of pi, e and the golden ratio.
MULTIPLIERS = (0x243F6A8885A308D3, 0x2B7E151628AED2A7, 0x1E3779B97F4A7C15)


def in_canonical_order(graphs: Tensor) -> Tensor:
    """Put the atoms of graphs in the order of `canonical_order`, places without an atom at the end."""
    return reordered(graphs, canonical_order(graphs))


def reordered(graphs: Tensor, order: Tensor) -> Tensor:
    """Put node `order[b, i]` in place i of graph b; order int64 (B, V)."""
    rows = graphs.gather(1, order[:, :, None].expand_as(graphs))
    return rows.gather(2, order[:, None, :].expand_as(graphs))


@torch.no_grad()
def canonical_order(graphs: Tensor) -> Tensor:
    """Compute the nodes' canonical order: int64 (B, V).

    Parameters
    ----------
    graphs : Tensor, int8 (B, V, V)
        Of less than 64 nodes, and of less than 16 kinds of atoms.
    """
    kinds = graphs.diagonal(dim1=1, dim2=2).long()
    bonds = graphs.long() - torch.diag_embed(kinds)
    degrees = (bonds > 0).sum(2)
    colours = _distinct_colours(kinds, bonds)
    # Few bonds first, then by kind; the colour only decides between atoms that agree in both.
    key = (degrees << 57) + (kinds << 53) + (colours & ((1 << 53) - 1))
    return _depth_first(key.argsort(dim=1).argsort(dim=1), kinds > 0, bonds > 0)


def _distinct_colours(kinds: Tensor, bonds: Tensor) -> Tensor:
    """Colours (B, V), no two of a graph's atoms having the same one."""
    nodes = kinds.shape[1]
    colours = _hashed(torch.where(kinds > 0, kinds, -torch.arange(1, nodes + 1, device=kinds.device)))
    colours = _refined(colours, bonds)
    while True:
        ordered, places = colours.sort(dim=1)
        twins = ordered[:, 1:] == ordered[:, :-1]
        if not twins.any():
            return colours
        # The first of the smallest shared colour is set apart; in graphs without one, nothing changes.
        first = places.gather(1, twins.int().argmax(dim=1, keepdim=True))
        apart = torch.where(twins.any(dim=1, keepdim=True), _hashed(colours.gather(1, first)), colours.gather(1, first))
        colours = _refined(colours.scatter(1, first, apart), bonds)


def _refined(colours: Tensor, bonds: Tensor) -> Tensor:
    """Colours that tell apart all atoms that have different surroundings."""
    count = _count(colours)
    while True:
        neighbours = torch.where(bonds > 0, _hashed(colours[:, None, :] + bonds * MULTIPLIERS[2]), 0).sum(2)
        colours = _hashed(colours * MULTIPLIERS[1] + neighbours)
        before, count = count, _count(colours)
        if torch.equal(before, count):
            return colours


def _count(colours: Tensor) -> Tensor:
    """How many different ones each graph has, (B,)."""
    return (colours.sort(dim=1).values.diff(dim=1) != 0).sum(1)


def _hashed(values: Tensor) -> Tensor:
    values = (values ^ (values >> 31)) * MULTIPLIERS[0]
    values = (values ^ (values >> 29)) * MULTIPLIERS[1]
    return values ^ (values >> 32)


def _depth_first(ranks: Tensor, there: Tensor, bound: Tensor) -> Tensor:
    """Walk on from the last atom that has a neighbour left to its neighbour of lowest rank, (B, V)."""
    graphs, nodes = ranks.shape
    rows = torch.arange(graphs, device=ranks.device)
    # An atom waits with the place of the last atom that was placed beside it; without one, behind those that have one.
    waiting = torch.where(there, -1, -2)
    left = torch.ones_like(there)
    order = []
    for place in range(nodes):
        score = torch.where(left, waiting * nodes - ranks, -nodes * nodes)
        chosen = score.argmax(dim=1)
        order.append(chosen)
        left[rows, chosen] = False
        waiting = torch.where(bound[rows, chosen], place, waiting)
    return torch.stack(order, dim=1)
