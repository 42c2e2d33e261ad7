"""Molecules as graphs: a graph checked by hand, the way back, charges, and every refusal counted by name."""

import numpy as np
import pytest
from rdkit import Chem

from fmtda.generative.molecules import (
    MALFORMED,
    NO_GRAPH,
    OUTSIDE,
    QM9,
    SEVERAL_PARTS,
    TOO_LARGE,
    GraphFormat,
    MoleculeRefusedError,
    read,
    read_many,
    to_molecule,
    to_smiles,
)

SMALL = GraphFormat(("C", "N", "O"), 4)
ZINC250K = GraphFormat(("C", "N", "O", "F", "P", "S", "Cl", "Br", "I"), 38)


def test_a_graph_holds_atom_types_on_its_diagonal_and_bond_types_beside_it():
    reading = read("C=NO", SMALL)
    assert reading.graph.dtype == np.int8
    assert reading.graph.tolist() == [[1, 2, 0, 0], [2, 2, 1, 0], [0, 1, 3, 0], [0, 0, 0, 0]]


def test_rings_are_kekulised_and_hydrogens_are_left_out():
    graph = read("[H]c1ccccc1", QM9).graph
    assert (np.diag(graph) == 1).sum() == 6 and (np.diag(graph) == 0).sum() == 3
    off = graph - np.diag(np.diag(graph))
    assert sorted(off[off > 0].tolist()) == [1] * 6 + [2] * 6


@pytest.mark.parametrize(
    "smiles",
    [
        "C",
        "C#N",
        "CC(=O)Oc1ccccc1",
        "C[N+](C)(C)C",
        "O=[N+]([O-])c1ccccc1",
        "C[N+]1([O-])CCC1",
        "CC=[N+]=[N-]",
        "CN=[N+]=[N-]",
        "[C-]#[N+]C",
        "c1cc[nH]c1",
        "CS(=O)(=O)Nc1ncc(Cl)cc1Br",
        "CP(=O)(O)CI",
    ],
)
def test_a_molecule_comes_back_from_its_graph(smiles):
    reading = read(smiles, ZINC250K)
    assert to_smiles(reading.graph, ZINC250K) == Chem.CanonSmiles(smiles) == reading.smiles
    assert not reading.lost


@pytest.mark.parametrize(
    ("smiles", "neutral"), [("C[NH3+]", "CN"), ("CC(=O)[O-]", "CC(=O)O"), ("[NH3+]CC(=O)[O-]", "NCC(=O)O")]
)
def test_a_charge_that_bonds_do_not_tell_is_neutralised_and_noted(smiles, neutral):
    reading = read(smiles, QM9)
    assert reading.smiles == neutral and reading.lost


def test_stereochemistry_is_dropped_and_not_counted_as_a_loss():
    reading = read("C[C@H](N)O", QM9)
    assert reading.smiles == Chem.CanonSmiles("CC(N)O") and not reading.lost


def test_the_scaffold_is_the_rings_and_what_links_them():
    assert read("CC1CC1CCC1CO1", QM9).scaffold == Chem.CanonSmiles("C1CC1CCC1CO1")
    assert read("CCO", QM9).scaffold == ""


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("C1CC", MALFORMED),
        ("C(C)(C)(C)(C)C", MALFORMED),
        ("", MALFORMED),
        ("CS", OUTSIDE),
        ("[H][H]", OUTSIDE),
        ("CCCCC", TOO_LARGE),
        ("C.N", SEVERAL_PARTS),
        ("C[O+](C)C", NO_GRAPH),
    ],
)
def test_what_has_no_graph_is_refused_with_its_reason(smiles, reason):
    with pytest.raises(MoleculeRefusedError) as refused:
        read(smiles, SMALL)
    assert refused.value.reason == reason and "\n" not in str(refused.value)


def test_an_account_counts_and_names_every_molecule_that_is_left_out(capfd):
    lines = list(enumerate(["CO", "CS", "C1CC", "C[NH3+]", "CF", "OO"], 1))
    readings, refusals = read_many(lines, SMALL)
    assert [reading.smiles for reading in readings] == ["CO", "CN", "OO"]
    assert (refusals.total, refusals.count, refusals.lost) == (6, 3, 1)
    assert refusals.by_reason == {OUTSIDE: ["line 2: CS", "line 5: CF"], MALFORMED: ["line 3: C1CC"]}
    assert str(refusals) == (
        "3 of 6 molecules left out: 1 malformed SMILES, 2 atom outside the table; 1 of the others lose charges"
    )
    assert capfd.readouterr().err == "", "RDKit's own complaints repeat ours"


def test_a_graph_is_never_mended():
    oxygen_with_three_bonds = np.array([[3, 1, 2], [1, 1, 0], [2, 0, 1]], dtype=np.int8)
    assert to_molecule(oxygen_with_three_bonds, SMALL) is None
    assert to_molecule(np.zeros((3, 3), dtype=np.int8), SMALL) is None
    nitro = read("CN(=O)=O", QM9)
    assert nitro.smiles == "C[N+](=O)[O-]"
    assert to_molecule(nitro.graph, QM9, charged=False) is None
    apart = np.diag(np.array([1, 3], dtype=np.int8))
    assert to_smiles(apart, SMALL) == "C.O"


def test_bonds_where_no_atom_is_show_nothing():
    graph = np.array([[1, 1, 1], [1, 3, 0], [1, 0, 0]], dtype=np.int8)
    assert to_smiles(graph, SMALL) == "CO"
