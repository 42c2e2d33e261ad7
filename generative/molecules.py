"""Turns molecules into graphs and back: SMILES to kekulised graphs without hydrogens, through RDKit.

A graph is an int8 matrix (V, V), symmetric. On its diagonal stands the type of each atom: 0 for none, else its place
in the format's table, from 1. Beside it stands the type of each bond: 0 none, 1 single, 2 double, 3 triple. Hydrogens
follow from the valencies, so what a graph cannot hold is lost: stereochemistry, isotopes, radicals and most charges.
A charge that hydrogens can make up for is neutralised that way ([NH3+] and [O-] become NH2 and OH); one that the bonds
give away comes back: `charges` says which.

Our choice: the rule of `charges`, where it goes beyond MoFlow's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import BondType

BONDS = (BondType.ZERO, BondType.SINGLE, BondType.DOUBLE, BondType.TRIPLE)
"""The bond types 0 to 3."""

MALFORMED = "malformed SMILES"
OUTSIDE = "atom outside the table"
TOO_LARGE = "over the size"
SEVERAL_PARTS = "several parts"
NO_GRAPH = "no valid molecule as a graph"
REASONS = (MALFORMED, OUTSIDE, TOO_LARGE, SEVERAL_PARTS, NO_GRAPH)
"""Why a molecule may be refused. The last one is for charges and bonds that a graph cannot express."""


@dataclass(frozen=True)
class GraphFormat:
    """Says which molecules have a graph.

    Attributes
    ----------
    atoms : tuple of str
        The table: symbol of atom type 1, 2, ...
    size : int
        V, the most atoms that a molecule may have, hydrogens not counted.
    """

    atoms: tuple[str, ...]
    size: int


QM9 = GraphFormat(("C", "N", "O", "F"), 9)


class MoleculeRefusedError(ValueError):
    """This is raised for a SMILES that has no graph.

    Attributes
    ----------
    reason : str
        One of `REASONS`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class Reading(NamedTuple):
    """Holds a molecule that has a graph.

    Attributes
    ----------
    graph : numpy.ndarray
        int8 (V, V), atoms in the order of the SMILES.
    smiles : str
        Canonical SMILES of what the graph shows.
    scaffold : str
        Canonical SMILES of its Bemis-Murcko scaffold (rings and what links them); empty without a ring.
    lost : bool
        Whether the graph shows another molecule than the one read, stereochemistry and isotopes aside.
    """

    graph: np.ndarray
    smiles: str
    scaffold: str
    lost: bool


def read(smiles: str, form: GraphFormat) -> Reading:
    """Make the graph of a SMILES.

    Raises
    ------
    MoleculeRefusedError
        If the SMILES is malformed, or the molecule has no graph of this format.
    """
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles) if smiles else None
    if molecule is None:
        raise MoleculeRefusedError(MALFORMED, repr(smiles))
    if molecule.GetNumAtoms() > form.size:
        raise MoleculeRefusedError(TOO_LARGE, f"{smiles} has {molecule.GetNumAtoms()} atoms, allowed are {form.size}")
    graph = _graph(molecule, smiles, form)
    if len(Chem.GetMolFrags(molecule)) > 1:
        raise MoleculeRefusedError(SEVERAL_PARTS, smiles)
    held = molecule
    if any(atom.GetFormalCharge() or atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms()):
        with rdBase.BlockLogs():
            shown_by_graph = to_molecule(graph, form)
        if shown_by_graph is None:
            raise MoleculeRefusedError(NO_GRAPH, f"{smiles} has a charge that its bonds do not tell")
        held = shown_by_graph
    text, scaffold = (Chem.MolToSmiles(shown, isomericSmiles=False) for shown in (held, Chem.MurckoDecompose(held)))
    return Reading(graph, text, scaffold, lost=held is not molecule and _electrons(held) != _electrons(molecule))


def to_molecule(graph: np.ndarray, form: GraphFormat, charged: bool = True) -> Chem.Mol | None:
    """Make the molecule that a graph shows, sanitised and as it is: no bond or atom is changed to make it valid.

    Parameters
    ----------
    graph : numpy.ndarray
        int8 (V, V). Bonds at a place without an atom show nothing, as in GraphNVP's official code.
    form : GraphFormat
    charged : bool
        Whether atoms get their `charges`. Without, nitro groups and quaternary nitrogen are invalid.

    Returns
    -------
    rdkit.Chem.Mol or None
        None if the graph is empty or RDKit refuses it, for its valencies above all. It may have several parts.
    """
    molecule = skeleton(graph, form, charged)
    if molecule is None or Chem.SanitizeMol(molecule, catchErrors=True):
        return None
    return molecule


def to_smiles(graph: np.ndarray, form: GraphFormat) -> str | None:
    """Write the canonical SMILES of the molecule that a graph shows, None where `to_molecule` is."""
    molecule = to_molecule(graph, form)
    return None if molecule is None else Chem.MolToSmiles(molecule)


def all_smiles(graphs: np.ndarray, form: GraphFormat) -> Iterator[str | None]:
    """Yield `to_smiles` of every graph, in order, RDKit's complaints unheard; graphs int8 (N, V, V)."""
    for graph in graphs:
        with rdBase.BlockLogs():
            yield to_smiles(graph, form)


def skeleton(graph: np.ndarray, form: GraphFormat, charged: bool = True) -> Chem.RWMol | None:
    """Make atoms, bonds and charges of a graph, not sanitised; None without any atom."""
    kinds = graph.diagonal()
    places = kinds.nonzero()[0]
    if len(places) == 0:
        return None
    bonds = graph[np.ix_(places, places)]
    np.fill_diagonal(bonds, 0)
    symbols = [form.atoms[kind - 1] for kind in kinds[places].tolist()]
    molecule = Chem.RWMol()
    for symbol, charge in zip(symbols, charges(symbols, bonds) if charged else [0] * len(symbols), strict=True):
        atom = Chem.Atom(symbol)
        atom.SetFormalCharge(charge)
        molecule.AddAtom(atom)
    first, second = np.triu(bonds, 1).nonzero()
    for i, j, order in zip(first.tolist(), second.tolist(), bonds[first, second].tolist(), strict=True):
        molecule.AddBond(i, j, BONDS[order])
    return molecule


def charges(symbols: list[str], bonds: np.ndarray) -> list[int]:
    """Compute the charges that bonds give away, by a rule that extends MoFlow's.

    A nitrogen whose bonds add up to four carries +1. One of its neighbours with no other bond carries the -1 to it,
    if there is such a neighbour: an O by a single bond (nitro, N-oxide), an N by a double one (diazo, azide), a C by a
    triple one (isocyanide). Charges on other atoms are beyond the rule.

    Parameters
    ----------
    symbols : list of str
        Of M atoms.
    bonds : numpy.ndarray
        int8 (M, M), zero on the diagonal.

    Returns
    -------
    list of int
        Of length M.
    """
    result = [0] * len(symbols)
    orders = bonds.sum(axis=1).tolist()
    for i, symbol in enumerate(symbols):
        if symbol == "N" and orders[i] == 4:
            result[i] = 1
            for j in bonds[i].nonzero()[0].tolist():
                if (symbols[j], orders[j]) in COUNTERPARTS and bonds[i, j] == orders[j] and result[j] == 0:
                    result[j] = -1
                    break
    return result


COUNTERPARTS = {("O", 1), ("N", 2), ("C", 3)}
"""What carries the -1 beside an N with four bonds: symbol, and order of its only bond."""


class Refusals:
    """Counts what was refused and names it.

    Attributes
    ----------
    total : int
        Molecules that were read, refused or not.
    lost : int
        Those that came back as another molecule than was read, because of charges or radicals.
    by_reason : dict of str to list of str
        Each reason's lines, ``line NUMBER: SMILES``, in the order of reading; a reason without any is missing.
    """

    def __init__(self) -> None:
        self.total = self.lost = 0
        self.by_reason: dict[str, list[str]] = {}

    @property
    def count(self) -> int:
        """Count the refused ones."""
        return sum(map(len, self.by_reason.values()))

    def add(self, later: Refusals) -> None:
        """Join the account of molecules that were read after these."""
        self.total += later.total
        self.lost += later.lost
        for reason, lines in later.by_reason.items():
            self.by_reason.setdefault(reason, []).extend(lines)

    def __str__(self) -> str:
        """``736 of 133,247 molecules left out: 510 malformed SMILES, ...; 28,031 of the others lose charges``."""
        text = f"{self.count:,} of {self.total:,} molecules left out"
        counts = [f"{len(self.by_reason[reason]):,} {reason}" for reason in REASONS if reason in self.by_reason]
        if counts:
            text += ": " + ", ".join(counts)
        return f"{text}; {self.lost:,} of the others lose charges"


def read_many(lines: Iterable[tuple[int, str]], form: GraphFormat) -> tuple[list[Reading], Refusals]:
    """Do as `read` for many SMILES: return those that have a graph, and the account of those that do not.

    Parameters
    ----------
    lines : iterable of (int, str)
        Line numbers, for the account, and SMILES.
    form : GraphFormat
    """
    readings, refusals = [], Refusals()
    for number, smiles in lines:
        refusals.total += 1
        try:
            readings.append(read(smiles, form))
            refusals.lost += readings[-1].lost
        except MoleculeRefusedError as error:
            refusals.by_reason.setdefault(error.reason, []).append(f"line {number}: {smiles}")
    return readings, refusals


def _graph(molecule: Chem.Mol, smiles: str, form: GraphFormat) -> np.ndarray:
    kekulised = Chem.Mol(molecule)
    Chem.Kekulize(kekulised, clearAromaticFlags=True)
    graph = np.zeros((form.size, form.size), dtype=np.int8)
    count = molecule.GetNumAtoms()
    orders = Chem.GetAdjacencyMatrix(kekulised, useBO=True)
    if (orders % 1).any() or orders.max(initial=0) > 3:
        raise MoleculeRefusedError(NO_GRAPH, f"{smiles} has a bond that is not single, double or triple")
    graph[:count, :count] = orders
    for i, atom in enumerate(molecule.GetAtoms()):
        if atom.GetSymbol() not in form.atoms:
            raise MoleculeRefusedError(OUTSIDE, f"{smiles} has {atom.GetSymbol()}, allowed are {', '.join(form.atoms)}")
        graph[i, i] = form.atoms.index(atom.GetSymbol()) + 1
    return graph


def _electrons(molecule: Chem.Mol) -> list[tuple[int, int, int]]:
    """Each atom's charge, radical electrons and hydrogens: all that can differ where atoms and bonds are the same."""
    return [
        (atom.GetFormalCharge(), atom.GetNumRadicalElectrons(), atom.GetTotalNumHs()) for atom in molecule.GetAtoms()
    ]
