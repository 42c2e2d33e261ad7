"""The families of molecules: files read whole or refused by name, two parts without a common molecule, scaffolds."""

import gzip

import numpy as np
import pytest
import torch

from fmtda.domains import decoding
from fmtda.domains.examples import DataError
from fmtda.domains.family import DataSpec
from fmtda.domains.fragments import enumerated
from fmtda.domains.molecules import QM9, Fragments, Zinc250k
from fmtda.domains.partition import split_between, split_labels
from fmtda.generative.molecules import QM9 as QM9_FORMAT
from fmtda.generative.molecules import all_smiles, read

LINES = ["C1CC1", "CC1CC1", "c1ccccc1", "Cc1ccccc1", "CCO", "C1CC", "CCS", "C" * 10, "CC", "CCC", "N.O", "OC"]


@pytest.fixture
def qm9_file(tmp_path):
    """Eight molecules with a graph between four without, as qm9.csv."""
    file = tmp_path / "data" / "molecules" / "qm9.csv"
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(["smiles", *LINES]) + "\n")
    return file


def spec_of(file):
    return DataSpec(file.parent.parent)


def both_parts(family, spec):
    return [family.load(family.name, part, spec) for part in ("train", "test")]


def test_a_file_becomes_graphs_and_every_other_line_is_told(qm9_file, capfd):
    parts = both_parts(QM9(), spec_of(qm9_file))
    graphs = torch.cat([part.inputs for part in parts])
    assert graphs.dtype == torch.int8 and graphs.shape == (8, 9, 9)
    assert set(all_smiles(graphs.numpy(), QM9_FORMAT)) == {
        "C1CC1",
        "CC1CC1",
        "c1ccccc1",
        "Cc1ccccc1",
        "CCO",
        "CC",
        "CCC",
        "CO",
    }
    account = QM9().account(spec_of(qm9_file))
    assert (
        "4 of 12 molecules left out: 1 malformed SMILES, 1 atom outside the table, 1 over the size, 1 several"
        in account
    )
    assert account in capfd.readouterr().err
    listed = open(account.rpartition(" in ")[2]).read()
    assert all(line in listed for line in ("line 7: C1CC", "line 8: CCS", "line 9: CCCCCCCCCC", "line 12: N.O"))


def test_workers_read_the_same_as_one_process(qm9_file, monkeypatch, cache_folder):
    alone = both_parts(QM9(), spec_of(qm9_file))
    monkeypatch.setenv("FMTDA_CACHE", str(cache_folder / "other"))
    monkeypatch.setattr(decoding, "_workers", lambda read_bytes: 1)
    helped = both_parts(QM9(), spec_of(qm9_file))
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one.inputs, other.inputs) and torch.equal(one.labels, other.labels)


def test_the_parts_do_not_depend_on_the_order_of_the_file(qm9_file):
    before = [set(all_smiles(part.inputs.numpy(), QM9_FORMAT)) for part in both_parts(QM9(), spec_of(qm9_file))]
    qm9_file.write_text("\n".join(["smiles", *reversed(LINES), "F"]) + "\n")
    after = [set(all_smiles(part.inputs.numpy(), QM9_FORMAT)) for part in both_parts(QM9(), spec_of(qm9_file))]
    assert before[0] <= after[0] and before[1] <= after[1]


def test_labels_number_the_scaffolds_the_most_frequent_first(qm9_file):
    train = torch.cat([part.labels for part in both_parts(QM9(), spec_of(qm9_file))])
    graphs = np.concatenate([part.inputs.numpy() for part in both_parts(QM9(), spec_of(qm9_file))])
    of = dict(zip(all_smiles(graphs, QM9_FORMAT), train.tolist(), strict=True))
    assert of["CCO"] == of["CC"] == of["CO"] == 0
    assert of["C1CC1"] == of["CC1CC1"] != of["c1ccccc1"] == of["Cc1ccccc1"]


def test_clients_can_hold_scaffolds_of_their_own():
    train = Fragments().load("fragments", "train", DataSpec())
    labels = split_labels(train)
    shares = split_between(labels, 4, "scaffold", 0.5, 0, 1, "fragments")
    assert sum(len(set(labels[share])) for share in shares) == len(set(labels))
    assert max(map(len, shares)) < 2.5 * min(map(len, shares))


def test_fragments_are_a_few_thousand_different_molecules_in_two_parts():
    smiles = enumerated(9)
    assert len(smiles) == len(set(smiles)) == 6858
    assert {read(text, QM9_FORMAT).smiles for text in smiles} == set(smiles)
    train, test = both_parts(Fragments(), DataSpec())
    assert len(train) + len(test) == 6858 and 0.08 < len(test) / 6858 < 0.12
    assert Fragments().account(DataSpec()) == ""


def test_zinc_is_read_from_its_packed_file(tmp_path):
    with gzip.open(tmp_path / "zinc250k.smi.gz", "wt") as file:
        file.write("CC(C)(C)c1ccc2occ(CC(=O)Nc3ccccc3F)c2c1\nC[C@@H]1CC(Nc2cncc(-c3nncn3C)c2)C[C@@H](C)C1\n" * 9)
    parts = both_parts(Zinc250k(), DataSpec(tmp_path))
    assert sum(map(len, parts)) == 18
    assert all(part.inputs.shape[1:] == (38, 38) for part in parts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no qm9.csv, nor does molecules in it"),
        (b"\xff\xfe\x00", "damaged or no file of SMILES"),
        (b"smiles\nC1CC\nCCS\n", "holds no molecule with a graph .2 of 2 molecules left out"),
        (b"", "holds no molecule"),
    ],
)
def test_a_file_that_is_missing_damaged_or_of_no_use_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "qm9.csv").write_bytes(content)
    with pytest.raises(DataError, match=message) as refused:
        QM9().load("qm9", "train", DataSpec(tmp_path))
    assert "\n" not in str(refused.value)


def test_a_folder_is_asked_for_where_there_is_none():
    with pytest.raises(DataError, match="qm9.csv: give the folder it lies in with --data-dir"):
        QM9().check(["qm9"], DataSpec())


def test_the_first_lines_of_the_real_files(real_data, tmp_path):
    folder = real_data / "molecules"
    if not folder.is_dir():
        pytest.skip(f"no molecules in {real_data}")
    (tmp_path / "qm9.csv").write_text("\n".join((folder / "qm9.csv").read_text().splitlines()[:1500]))
    train, test = both_parts(QM9(), DataSpec(tmp_path))
    assert 1400 < len(train) + len(test) < 1500
