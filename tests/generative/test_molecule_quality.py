"""Quality of sampled molecules: every kind of graph counted as what it is, properties against SciPy and by hand."""

import numpy as np
import pytest
from rdkit import Chem

from fmtda.generative.molecule_drawing import draw_grid
from fmtda.generative.molecule_quality import (
    assess,
    corrected,
    distances,
    draw_properties,
    half_against_half,
    properties,
)
from fmtda.generative.molecules import QM9, read


def graph_of(smiles):
    return read(smiles, QM9).graph


def bonded(kinds, **bonds):
    """A graph by hand: atom types, and ``b01=2`` for a double bond between the first two."""
    graph = np.zeros((9, 9), dtype=np.int8)
    graph[range(len(kinds)), range(len(kinds))] = kinds
    for places, order in bonds.items():
        i, j = int(places[1]), int(places[2])
        graph[i, j] = graph[j, i] = order
    return graph


EMPTY = bonded([])
FULL_OXYGEN = bonded([1, 3, 1], b01=2, b12=1)
APART = bonded([1, 1, 3], b01=1)
DANGLING = bonded([1, 3, 0], b01=1, b02=1)
GRAPHS = np.stack([graph_of(s) for s in ("CCO", "OCC", "C1CC1", "CN(=O)=O")] + [EMPTY, FULL_OXYGEN, APART, DANGLING])


def test_graphs_are_counted_as_valid_or_by_what_is_wrong_with_them():
    steps = []
    quality = assess(GRAPHS, QM9, {"CCO", "CO"}, advance=steps.append)
    assert quality.smiles == ("CCO", "CCO", "C1CC1", "C[N+](=O)[O-]", "CO")
    assert (quality.count, quality.empty, quality.refused, quality.apart) == (8, 1, 1, 1)
    assert (quality.charged, quality.dangling) == (1, 1)
    assert (quality.valid, quality.unique, quality.novel) == (62.5, 80.0, 50.0)
    assert quality.product == pytest.approx(25.0), "two new molecules out of eight graphs"
    assert sum(steps) == 8 and not quality.corrected


def test_correction_is_marked_and_makes_all_but_the_empty_graph_valid():
    quality = assess(GRAPHS, QM9, set(), correct=True)
    assert quality.corrected and quality.figures()["corrected"]
    assert (quality.empty, quality.refused, quality.apart) == (1, 0, 0) and len(quality.smiles) == 7


def test_correction_lowers_the_highest_bond_of_an_atom_beyond_its_valency():
    assert Chem.MolToSmiles(corrected(FULL_OXYGEN, QM9)) == "COC"
    carbon_of_five = bonded([1, 1, 1, 1], b01=3, b02=1, b03=1)
    assert Chem.MolToSmiles(corrected(carbon_of_five, QM9)) == "C=C(C)C"
    assert Chem.MolToSmiles(corrected(APART, QM9)) == "CC", "the largest part"


def test_correction_leaves_what_is_valid():
    for smiles in ("CCO", "C1CC1", "C[N+](=O)[O-]", "c1ccoc1"):
        assert Chem.MolToSmiles(corrected(graph_of(smiles), QM9)) == smiles


def test_nothing_sampled_and_nothing_valid_are_zero_percent():
    for graphs in (GRAPHS[:0], EMPTY[None]):
        quality = assess(graphs, QM9, set())
        assert (quality.valid, quality.unique, quality.novel, quality.product) == (0.0, 0.0, 0.0, 0.0)


def test_properties_of_known_molecules():
    values = properties(["CCO", "c1ccccc1", "O=C1CC1F"], QM9)
    assert values["molecular weight"][:2] == pytest.approx([46.069, 78.114], abs=1e-3)
    assert values["logP"][:2] == pytest.approx([-0.0014, 1.6866], abs=1e-3), "RDKit's documentation"
    assert values["C atoms"].tolist() == [2, 6, 3]
    assert values["O atoms"].tolist() == [1, 0, 1]
    assert values["F atoms"].tolist() == [0, 0, 1]
    assert values["ring size"].tolist() == [6, 3]
    assert ((values["QED"] > 0) & (values["QED"] < 1)).all()


def test_the_distance_of_shifted_values_is_the_shift():
    one = {"logP": np.arange(10.0), "ring size": np.array([])}
    moved = distances(one, {"logP": np.arange(10.0) + 2.5, "ring size": np.array([3.0])})
    assert moved["logP"] == pytest.approx(2.5)
    assert moved["ring size"] is None


def test_halves_of_one_set_are_near_each_other():
    values = {"QED": np.random.default_rng(0).random(2000)}
    near = half_against_half(values, seed=0)["QED"]
    assert (
        0 < near < 0.05 and near == half_against_half(values, seed=0)["QED"] != half_against_half(values, seed=1)["QED"]
    )


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_molecules_and_properties_are_drawn_the_same_each_time(tmp_path, ending):
    files = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        draw_grid(["CCO", "", "c1ccoc1"], folder / f"grid.{ending}", ["a", "invalid", "c"])
        values = properties(["CCO", "c1ccoc1"], QM9)
        draw_properties({"training": values, "samples": values}, folder / f"properties.{ending}")
        files.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert files[0] == files[1] and all(len(content) > 500 for content in files[0].values())


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must be .svg or .png"):
        draw_grid(["C"], tmp_path / "grid.jpg")
    with pytest.raises(ValueError, match="no molecule to draw"):
        draw_grid([], tmp_path / "grid.svg")
