"""Draws molecules side by side, as SVG or PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rdkit import Chem
from rdkit.Chem.Draw import MolDraw2DCairo, MolDraw2DSVG, PrepareMolForDrawing


def draw_grid(molecules: Sequence[str], file: Path, legends: Sequence[str] = (), columns: int = 8, side: int = 150):
    """Write a picture of molecules, row by row.

    Parameters
    ----------
    molecules : sequence of str
        SMILES; where one is empty, its place shows its legend alone.
    file : Path
        `.svg` or `.png`.
    legends : sequence of str
        What stands below each; none if empty.
    columns : int
        Molecules in a row.
    side : int
        Pixels of a molecule's square.

    Raises
    ------
    ValueError
        If there is no molecule, or the file ends in something else.
    """
    if file.suffix not in (".svg", ".png"):
        raise ValueError(f"{file} must end in .svg or .png")
    if not molecules:
        raise ValueError("there is no molecule to draw")
    columns = min(columns, len(molecules))
    rows = -(-len(molecules) // columns)
    canvas = MolDraw2DSVG if file.suffix == ".svg" else MolDraw2DCairo
    drawing = canvas(columns * side, rows * side, side, side)
    prepared = [PrepareMolForDrawing(Chem.MolFromSmiles(smiles)) for smiles in molecules]
    drawing.DrawMolecules(prepared, legends=list(legends) or [""] * len(prepared))
    drawing.FinishDrawing()
    text = drawing.GetDrawingText()
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
