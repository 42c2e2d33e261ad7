"""Draws molecules side by side, as SVG or PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rdkit import Chem
from rdkit.Chem.Draw import MolDraw2DCairo, MolDraw2DSVG, PrepareMolForDrawing

COLUMNS = 8
SIDE = 150
"""Pixels of a molecule's square."""


def draw_grid(smiles: Sequence[str], file: Path, legends: Sequence[str] = ()) -> None:
    """Write the `grid` of molecules to a file that ends in .svg or .png."""
    file.write_bytes(grid(smiles, file.suffix, legends))


def grid(smiles: Sequence[str], ending: str, legends: Sequence[str] = ()) -> bytes:
    """Draw molecules in one picture, row by row.

    Parameters
    ----------
    smiles : sequence of str
        Where one is empty, its place shows its legend alone, as RDKit would not.
    ending : {".svg", ".png"}
    legends : sequence of str
        What stands below each; empty for nothing.

    Raises
    ------
    ValueError
        If there is no molecule, or the ending is another one.
    """
    if ending not in (".svg", ".png"):
        raise ValueError(f"ending={ending!r} must be .svg or .png")
    if not smiles:
        raise ValueError("there is no molecule to draw")
    columns = min(COLUMNS, len(smiles))
    rows = -(-len(smiles) // columns)
    canvas = MolDraw2DSVG if ending == ".svg" else MolDraw2DCairo
    drawing = canvas(columns * SIDE, rows * SIDE, SIDE, SIDE)
    legends = list(legends) or [""] * len(smiles)
    molecules = [PrepareMolForDrawing(_molecule(*one)) for one in zip(smiles, legends, strict=True)]
    drawing.DrawMolecules(
        molecules, legends=[legend if one else "" for one, legend in zip(smiles, legends, strict=True)]
    )
    drawing.FinishDrawing()
    text = drawing.GetDrawingText()
    return text if isinstance(text, bytes) else text.encode()


def _molecule(smiles: str, legend: str) -> Chem.Mol:
    molecule = Chem.MolFromSmiles(smiles or "*")
    if not smiles:
        molecule.GetAtomWithIdx(0).SetProp("atomLabel", legend or " ")
    return molecule
