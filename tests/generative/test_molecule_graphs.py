"""Graphs of molecules as examples: refused where the data are none, judged, written as SMILES and drawn."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fmtda.generative.molecule_graphs import MoleculeGraphs
from fmtda.generative.molecules import QM9, read

SETTINGS = SimpleNamespace(
    shape=(9, 9), class_names=QM9.atoms, data=SimpleNamespace(name="fragments"), workload="graph-nvp"
)


def graphs_of(*smiles):
    """An empty graph where a SMILES is empty."""
    none = np.zeros((9, 9), dtype=np.int8)
    return torch.from_numpy(np.stack([read(text, QM9).graph if text else none for text in smiles]))


def test_data_without_graphs_are_refused():
    MoleculeGraphs().check(SETTINGS)
    with pytest.raises(
        ValueError, match="data.name=digits: its inputs are 3x32x32 and no graphs of molecules, which graph"
    ):
        MoleculeGraphs().check(
            SimpleNamespace(shape=(3, 32, 32), data=SimpleNamespace(name="digits"), workload="graph-nvp")
        )


def test_samples_are_written_as_smiles_with_their_number_and_drawn(tmp_path):
    MoleculeGraphs().write(graphs_of("CCO", "", "c1ccoc1"), tmp_path / "some.smi", SETTINGS)
    assert (tmp_path / "some.smi").read_text() == "CCO 0\nc1ccoc1 2\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["some.smi", "some.svg"]
    assert (tmp_path / "some.svg").read_text().startswith("<?xml")


def test_the_picture_shows_every_sample_valid_or_not():
    picture = MoleculeGraphs().picture(graphs_of("CCO", "", *["c1ccoc1"] * 8), SETTINGS)
    assert picture.shape == (3, 300, 1200) and picture.dtype == torch.uint8
    for place in range(10):
        top, left = place // 8 * 150, place % 8 * 150
        assert picture[:, top : top + 150, left : left + 150].float().std() > 1, "an empty place"


def test_quality_says_what_samples_are_worth_beside_real_molecules():
    real = graphs_of("CCO", "CCC", "C1CC1", "CCN", "c1ccoc1", "CC=O")
    quality = MoleculeGraphs().judge(real, torch.zeros(6), SETTINGS, seed=0)(graphs_of("CCO", "CCF", ""))
    assert (quality["samples"], quality["valid"], quality["unique"], quality["novel"]) == (3, 200 / 3, 100, 50)
    assert quality["with_valency_correction"]["corrected"] and not quality["corrected"]
    assert quality["wasserstein"]["ring size"] is None, "no sample has a ring"
    assert quality["wasserstein"]["F atoms"] == pytest.approx(0.5)
    assert quality["wasserstein_half_to_half"].keys() == quality["wasserstein"].keys()
    carbons = quality["histograms"]["C atoms"]
    assert carbons["edges"] == [1.5, 2.5, 3.5, 4.5]
    assert carbons["training"] == pytest.approx([3 / 6, 2 / 6, 1 / 6]) and carbons["sampled"] == [1, 0, 0]
