"""Puts small molecules together from fragments, for the family that needs no file."""

from __future__ import annotations

from itertools import combinations_with_replacement

from rdkit import Chem

CORES = (
    *("C", "CC", "CCC", "CCCC", "CC(C)C", "C=C", "CC=C", "C#C", "CC#C", "CCCCC", "C=CC=C"),
    *(
        "CO",
        "CCO",
        "COC",
        "CCOC",
        "CN",
        "CCN",
        "CNC",
        "C=O",
        "CC=O",
        "CC(C)=O",
        "CC(=O)O",
        "CC(N)=O",
        "CC(=O)OC",
        "N=C",
    ),
    *("C1CC1", "C1CO1", "C1CN1", "C1CCC1", "C1COC1", "C1CNC1", "C1CCCC1", "C1CCOC1", "C1CCNC1", "C1=CCCC1", "C1CCCCC1"),
    *("C1CCOCC1", "C1CCNCC1", "C1CC2CC12", "O=C1CCC1", "O=C1CCCC1", "O=C1CCCO1", "O=C1CCCN1"),
    *("c1ccccc1", "c1ccncc1", "c1ccoc1", "c1cc[nH]c1", "c1cn[nH]c1", "c1c[nH]cn1", "c1cocn1", "c1conc1", "c1cncnc1"),
)
"""What substituents are put on."""

SUBSTITUENTS = ("C", "O", "N", "F", "OC", "C=O", "C#N")
"""What stands in for a hydrogen; the first atom is the one that is bonded."""


def enumerated(most_atoms: int) -> list[str]:
    """List every molecule of a core with up to two hydrogens replaced, of 2 atoms at least and `most_atoms` at most.

    Returns
    -------
    list of str
        Canonical SMILES, sorted, each once.
    """
    groups = [Chem.MolFromSmiles(smiles) for smiles in SUBSTITUENTS]
    found = set()
    for core in map(Chem.MolFromSmiles, CORES):
        found.add(Chem.MolToSmiles(core))
        for first, second in combinations_with_replacement(groups, 2):
            if core.GetNumAtoms() + first.GetNumAtoms() > most_atoms:
                continue
            for once in _substituted(core, first):
                found.add(Chem.MolToSmiles(once))
                if once.GetNumAtoms() + second.GetNumAtoms() <= most_atoms:
                    found.update(Chem.MolToSmiles(twice) for twice in _substituted(once, second, core.GetNumAtoms()))
    return sorted(smiles for smiles in found if Chem.MolFromSmiles(smiles).GetNumAtoms() > 1)


def _substituted(molecule: Chem.Mol, group: Chem.Mol, first_atoms: int | None = None) -> list[Chem.Mol]:
    """The molecule with the group on each of its carbons that has a hydrogen, of the first ones alone if so asked."""
    results = []
    for place in range(molecule.GetNumAtoms() if first_atoms is None else first_atoms):
        atom = molecule.GetAtomWithIdx(place)
        if atom.GetSymbol() == "C" and atom.GetTotalNumHs() > 0:
            joined = Chem.RWMol(Chem.CombineMols(molecule, group))
            joined.AddBond(place, molecule.GetNumAtoms(), Chem.BondType.SINGLE)
            Chem.SanitizeMol(joined)
            results.append(joined)
    return results
