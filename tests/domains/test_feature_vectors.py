"""Feature vectors: files of each layout made here, whole and damaged; the split; the real SURF histograms."""

import re
import zipfile

import numpy as np
import pytest
import torch
from scipy.io import savemat

from fmtda.domains.examples import DataError
from fmtda.domains.family import DataSpec
from fmtda.domains.feature_vectors import FeatureVectors

LABELS = np.array([1, 2, 10, 1, 2, 10, 1, 2, 10, 10])
PARTS = ("train", "test")
SURF_COUNTS = {"amazon": 958, "Caltech10": 1123, "dslr": 157, "webcam": 295}


@pytest.fixture
def family():
    return FeatureVectors()


def counts(rows=10, size=4, seed=0):
    return np.random.default_rng(seed).poisson(3, (rows, size)).astype(float)


def write_surf(folder, domain="amazon", features=None, labels=LABELS):
    folder.mkdir(parents=True, exist_ok=True)
    content = {"fts": counts() if features is None else features, "labels": labels[:, None].astype(float)}
    savemat(folder / f"{domain}_SURF_L10.mat", content, do_compression=True)


def write_npz(folder, domain, features, labels=None):
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"{domain}.npz", features=features, **({} if labels is None else {"labels": labels}))


def loaded(family, folder, domain, **spec):
    """All of a domain as a set of (vector, label)."""
    parts = [family.load(domain, part, DataSpec(folder, **spec)) for part in PARTS]
    return {
        (tuple(vector), label)
        for part in parts
        for vector, label in zip(part.inputs.tolist(), part.labels.tolist(), strict=True)
    }


def refused(family, folder, domain="amazon", **spec):
    with pytest.raises(DataError) as error:
        family.load(domain, "train", DataSpec(folder, **spec))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_surf_files_are_read_with_their_names_and_classes(family, tmp_path):
    write_surf(tmp_path, "amazon")
    write_surf(tmp_path, "Caltech10", counts(seed=1))
    assert family.domains_in(tmp_path) == ("amazon", "Caltech10")
    defaults = family.defaults(tmp_path)
    assert (defaults["source"], defaults["targets"], defaults["input-shape"]) == ("amazon", "Caltech10", "4")
    classes = tuple(defaults["classes"].split(","))
    assert len(classes) == 10 and (classes[0], classes[-1]) == ("backpack", "video-projector")
    expected = {(tuple(row), label - 1) for row, label in zip(counts(seed=1).tolist(), LABELS.tolist(), strict=True)}
    assert loaded(family, tmp_path, "Caltech10", classes=classes, input_shape=(4,)) == expected
    assert family.load("amazon", "train", DataSpec(tmp_path)).inputs.dtype == torch.float32


def test_the_folder_may_lie_in_the_data_folder(family, tmp_path):
    write_surf(tmp_path / "office_caltech_surf")
    assert family.domains_in(tmp_path) == ("amazon",)
    assert len(loaded(family, tmp_path, "amazon")) == 10


def test_lists_of_picture_numbers_are_no_domain(family, tmp_path):
    write_surf(tmp_path)
    savemat(tmp_path / "amazon_SURF_L10_imgs.mat", {"imgNames": [1, 2]})
    assert family.domains_in(tmp_path) == ("amazon",)


def test_other_names_of_the_arrays_are_read(family, tmp_path):
    savemat(tmp_path / "dslr.mat", {"feas": counts(), "label": LABELS[None]})
    assert family.defaults(tmp_path)["classes"] == "1,2,10"
    assert {label for _, label in loaded(family, tmp_path, "dslr", classes=("1", "2", "10"))} == {0, 1, 2}


@pytest.mark.parametrize(
    ("labels", "classes"),
    [(["cup", "bike", " mug"], "bike,cup,mug"), ([7, -1, 30], "7,30"), ([7.0, 3.0, 30.0], "3,7,30")],
)
def test_npz_labels_are_words_or_numbers(family, tmp_path, labels, classes):
    vectors = np.arange(24, dtype=np.float64).reshape(12, 2) - 5.5
    write_npz(tmp_path, "one", vectors, np.array(labels * 4))
    assert family.defaults(tmp_path)["classes"] == classes
    names = tuple(classes.split(","))
    given = [f"{label:g}" if isinstance(label, float) else str(label).strip() for label in labels * 4]
    expected = {
        (tuple(vector), names.index(name) if name in names else -1)
        for vector, name in zip(vectors.tolist(), given, strict=True)
    }
    assert loaded(family, tmp_path, "one", classes=names, input_shape=(2,)) == expected


def test_labels_are_indices_into_the_classes_of_the_run(family, tmp_path):
    write_npz(tmp_path, "target", counts(), np.array(["mug", "cup"] * 5))
    assert {label for _, label in loaded(family, tmp_path, "target", classes=("bike", "mug", "cup"))} == {1, 2}
    assert "class 'mug'" in refused(family, tmp_path, "target", classes=("bike", "cup"))


def test_a_domain_without_labels_can_be_a_target_alone(family, tmp_path):
    write_npz(tmp_path, "bare", counts())
    examples = family.load("bare", "train", DataSpec(tmp_path, classes=("cup",)))
    assert len(examples) == 5 and not examples.labelled
    with pytest.raises(DataError, match="bare.npz has no labels, which a source needs"):
        family.defaults(tmp_path)


def test_the_named_source_decides_targets_classes_and_shape(family, tmp_path):
    write_npz(tmp_path, "a", counts(size=3), LABELS)
    write_npz(tmp_path, "b", counts(), LABELS + 1)
    defaults = family.defaults(tmp_path, {"source": "b"})
    assert (defaults["source"], defaults["targets"]) == ("b", "a")
    assert (defaults["classes"], defaults["input-shape"], defaults["network"]) == ("2,3,11", "4", "mlp")
    with pytest.raises(DataError, match="domain 'c' is not in the family 'feature-vectors'; allowed: a, b"):
        family.defaults(tmp_path, {"source": "c"})


def test_vectors_of_another_length_are_refused(family, tmp_path):
    write_npz(tmp_path, "a", counts(), LABELS)
    write_npz(tmp_path, "b", counts(size=3), LABELS)
    with pytest.raises(DataError, match="'b' has vectors of 3 values, domain 'a' of 4"):
        family.check(["a", "b"], DataSpec(tmp_path))
    assert re.search(
        "'b' has vectors of 3 values .*input-shape.* is 4", refused(family, tmp_path, "b", input_shape=(4,))
    )


def test_a_missing_or_empty_folder_is_refused(family, tmp_path):
    with pytest.raises(DataError, match="give the folder they lie in with --data-dir"):
        family.defaults()
    with pytest.raises(DataError, match="absent is no folder"):
        family.domains_in(tmp_path / "absent")
    with pytest.raises(DataError, match=r"holds no .mat or .npz file"):
        family.domains_in(tmp_path)


def test_two_files_of_one_domain_and_a_comma_are_refused(family, tmp_path):
    write_surf(tmp_path, "dslr")
    write_npz(tmp_path, "dslr", counts())
    with pytest.raises(DataError, match="are both the domain 'dslr'"):
        family.domains_in(tmp_path)
    (tmp_path / "dslr.npz").rename(tmp_path / "dslr,2.npz")
    with pytest.raises(DataError, match="a comma in its name"):
        family.domains_in(tmp_path)


@pytest.mark.parametrize("suffix", ["mat", "npz"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_named_and_leaves_no_cache(family, tmp_path, cache_folder, suffix, kept):
    data = tmp_path / "data"
    write_surf(data) if suffix == "mat" else write_npz(data, "amazon", counts(), LABELS)
    (file,) = data.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    assert f"{file} is damaged or truncated" in refused(family, data)
    assert not cache_folder.exists()


def test_matlab_7_3_is_refused_with_what_to_do(family, tmp_path):
    (tmp_path / "amazon.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(512))
    assert "save it with MATLAB's option -v7, or as .npz" in refused(family, tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_values_that_are_not_finite_are_refused_with_their_row(family, tmp_path, value):
    features = counts()
    features[7, 2] = value
    write_surf(tmp_path, features=features)
    assert "1 of 10 vectors have values that are not finite in float32, row 7" in refused(family, tmp_path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": counts()}, "holds x; the vectors must be called features or fts or feas"),
        ({"features": counts()[0]}, r"features of shape \(4,\); \(N, D\) is needed"),
        ({"features": counts()[:0]}, r"features of shape \(0, 4\)"),
        ({"features": counts(), "labels": LABELS[:9]}, r"labels of shape \(9,\) for 10 vectors"),
        ({"features": counts().astype(str)}, "real numbers are needed"),
        ({"features": counts() * 1j}, "real numbers are needed"),
        ({"features": counts().astype(object)}, "is damaged or truncated"),
        ({"features": counts(), "labels": LABELS + 0.5}, "whole numbers or words are needed"),
        (
            {"features": counts(), "labels": np.array(["a,b"] * 10)},
            "class 'a,b': names are not empty and have no comma",
        ),
        ({"features": counts(), "labels": np.arange(10)}, None),
        ({"features": np.ones((10, 4)), "labels": LABELS}, None),
    ],
)
def test_arrays_that_do_not_fit_are_refused(family, tmp_path, arrays, message):
    np.savez(tmp_path / "amazon.npz", **arrays)
    if message is None:  # no class has two different vectors: all of them are in the training part
        assert len(family.load("amazon", "train", DataSpec(tmp_path))) == 10
        with pytest.raises(DataError, match="too few different vectors"):
            family.load("amazon", "test", DataSpec(tmp_path))
    else:
        assert re.search(message, refused(family, tmp_path))


def test_surf_labels_outside_the_ten_classes_are_refused(family, tmp_path):
    write_surf(tmp_path, labels=LABELS + 1)
    assert "labels other than 1 to 10" in refused(family, tmp_path)


def test_each_class_is_split_in_half_whatever_the_seed_and_the_order_of_the_file(family, tmp_path):
    features, labels = counts(rows=90, size=6), np.repeat([0, 1, 2], [50, 33, 7])
    shuffled = np.random.default_rng(1).permutation(90)
    write_npz(tmp_path / "sorted", "one", features, labels)
    write_npz(tmp_path / "shuffled", "one", features[shuffled].astype(np.uint8), labels[shuffled])
    for part, sizes in (("train", [25, 17, 4]), ("test", [25, 16, 3])):
        first = family.load("one", part, DataSpec(tmp_path / "sorted", seed=0))
        same = family.load("one", part, DataSpec(tmp_path / "shuffled", seed=1))
        assert first.labels.bincount().tolist() == sizes
        assert torch.equal(first.inputs, same.inputs) and torch.equal(first.labels, same.labels)
        assert first.labels.diff().ne(0).sum() > 5  # mixed, though the file is sorted by class


def test_equal_vectors_of_a_class_are_in_one_part(family, tmp_path):
    features = counts(rows=40, size=6)
    features[10:25] = features[5]
    features[30] = -0.0
    features[31] = 0.0
    write_npz(tmp_path, "one", features, np.zeros(40, dtype=int))
    train, test = ({tuple(row) for row in family.load("one", p, DataSpec(tmp_path)).inputs.tolist()} for p in PARTS)
    assert len(train) + len(test) == 24 and not train & test


def test_a_replaced_file_is_read_again(family, tmp_path):
    write_surf(tmp_path)
    before = loaded(family, tmp_path, "amazon")
    write_surf(tmp_path, features=counts() + 1)
    assert loaded(family, tmp_path, "amazon") == {(tuple(v + 1 for v in vector), label) for vector, label in before}


def test_a_check_reads_no_content(family, tmp_path):
    write_npz(tmp_path, "one", np.full((5, 3), np.nan))
    family.check(["one"], DataSpec(tmp_path, input_shape=(3,)))
    with zipfile.ZipFile(tmp_path / "one.npz") as archive:
        assert archive.namelist() == ["features.npy"]
    assert "5 of 5 vectors" in refused(family, tmp_path, "one")


@pytest.fixture
def surf_folder(real_data):
    if not (real_data / "office_caltech_surf").is_dir():
        pytest.skip(f"no office_caltech_surf in {real_data}")
    return real_data


def test_the_real_files_are_read(family, surf_folder):
    assert family.domains_in(surf_folder) == tuple(SURF_COUNTS)
    defaults = family.defaults(surf_folder, {"source": "webcam"})
    assert (defaults["targets"], defaults["input-shape"]) == ("amazon,Caltech10,dslr", "800")
    spec = DataSpec(surf_folder, 0, tuple(defaults["classes"].split(",")), (800,))
    family.check(list(SURF_COUNTS), spec)
    for domain, total in SURF_COUNTS.items():
        train, test = (family.load(domain, part, spec) for part in PARTS)
        assert len(train) + len(test) == total and 0 <= len(train) - len(test) <= 15
        assert train.inputs.shape[1] == 800 and train.inputs.min() == 0
        assert (train.labels.bincount() - test.labels.bincount()).abs().max() <= 4
        assert set(test.labels.tolist()) == set(range(10))


def test_the_labels_of_the_surf_files_are_the_classes_named(family, surf_folder):
    # The numbers of examples a class in Caltech-256, as its folders 003.backpack, 224.touring-bike, ... hold them.
    expected = {"backpack": 151, "touring-bike": 110, "calculator": 100, "head-phones": 138, "computer-keyboard": 85}
    expected |= {"laptop-101": 128, "computer-monitor": 133, "computer-mouse": 94, "coffee-mug": 87}
    expected |= {"video-projector": 97}
    classes = tuple(sorted(expected))
    parts = [family.load("Caltech10", part, DataSpec(surf_folder, 0, classes, (800,))) for part in PARTS]
    found = sum(part.labels.bincount() for part in parts)
    assert dict(zip(classes, found.tolist(), strict=True)) == expected
