"""The canonical order of atoms: the same for every order they come in, and a depth-first walk along the bonds."""

import numpy as np
import pytest
import torch

from fmtda.domains.fragments import enumerated
from fmtda.generative.atom_order import canonical_order, in_canonical_order, reordered
from fmtda.generative.molecules import QM9, all_smiles, read
from fmtda.generative.mpgvae import permuted

SYMMETRIC = ["C", "CC", "CC(C)(C)C", "C1CCCCC1", "c1ccccc1", "C12C3C4C1C5C2C3C45", "C1CC1C1CC1", "FC(F)C(F)F", "C#CC#C"]


def graphs_of(smiles):
    return torch.from_numpy(np.stack([read(text, QM9).graph for text in smiles]))


@pytest.fixture(scope="module")
def molecules():
    return torch.cat([graphs_of(enumerated(9)[::5]), graphs_of(SYMMETRIC)])


def test_every_order_of_the_atoms_comes_out_the_same(molecules):
    canonical = in_canonical_order(molecules)
    assert not torch.equal(canonical, molecules)
    for seed in range(3):
        renumbered = permuted(molecules, torch.Generator().manual_seed(seed))
        assert torch.equal(in_canonical_order(renumbered), canonical)
    assert torch.equal(in_canonical_order(molecules.flip(1, 2)), canonical), "empty places first"


def test_it_is_the_same_molecule_with_its_atoms_first(molecules):
    order = canonical_order(molecules)
    assert torch.equal(order.sort(dim=1).values, torch.arange(9).expand_as(order))
    canonical = reordered(molecules, order)
    assert list(all_smiles(canonical.numpy(), QM9)) == list(all_smiles(molecules.numpy(), QM9))
    there = canonical.diagonal(dim1=1, dim2=2) > 0
    assert not (there[:, 1:] & ~there[:, :-1]).any()


def test_each_atom_hangs_on_the_last_one_that_has_a_neighbour_left(molecules):
    for graph in in_canonical_order(molecules):
        bonds = (graph - torch.diag(graph.diagonal())) > 0
        atoms = int((graph.diagonal() > 0).sum())
        for place in range(1, atoms):
            waiting = [earlier for earlier in range(place) if bonds[earlier, place:].any()]
            assert bonds[waiting[-1], place]


def test_it_begins_at_an_atom_with_the_fewest_bonds(molecules):
    for graph in in_canonical_order(molecules):
        degrees = ((graph > 0).sum(1) - 1)[graph.diagonal() > 0]
        assert degrees[0] == degrees.min()


def test_different_molecules_do_not_come_out_alike(molecules):
    smiles = list(all_smiles(molecules.numpy(), QM9))
    assert len(torch.unique(in_canonical_order(molecules), dim=0)) == len(set(smiles))


def test_parts_and_empty_graphs_are_ordered_too():
    parts = torch.zeros(2, 9, 9, dtype=torch.int8)
    parts[0, :3, :3] = graphs_of(["CCO"])[0, :3, :3]
    parts[0, 5:7, 5:7] = graphs_of(["CN"])[0, :2, :2]
    renumbered = parts.flip(1, 2)
    assert torch.equal(in_canonical_order(parts), in_canonical_order(renumbered))
    assert not in_canonical_order(parts)[1].any()
