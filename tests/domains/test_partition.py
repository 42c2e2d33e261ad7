"""Splitting a domain between clients: everything once, fixed by the seed, nobody below the minimum."""

import warnings

import numpy as np
import pytest

from fmtda.domains.examples import DataError
from fmtda.domains.partition import split_between

LABELS = np.arange(2000) % 10


def split(labels=LABELS, shares=8, how="iid", alpha=0.5, seed=0, minimum=1):
    return split_between(labels, shares, how, alpha, seed, minimum, "svhn")


@pytest.mark.parametrize("how", ["iid", "dirichlet", "scaffold"])
def test_shares_are_sorted_disjoint_and_cover_everything(how):
    shares = split(how=how)
    assert len(shares) == 8
    assert all((np.diff(share) > 0).all() for share in shares)
    assert np.array_equal(np.sort(np.concatenate(shares)), np.arange(2000))


def test_iid_shares_differ_by_at_most_one_and_hold_all_classes():
    sizes = {len(share) for share in split(LABELS[:1999], shares=7)}
    assert sizes == {285, 286}
    assert all(len(np.unique(LABELS[share])) == 10 for share in split())


def test_a_small_alpha_gives_clients_few_classes():
    def dominant(alpha):
        return np.mean(
            [np.bincount(LABELS[s], minlength=10).max() / len(s) for s in split(how="dirichlet", alpha=alpha)]
        )

    assert dominant(0.1) > 0.4
    assert dominant(100.0) < 0.2


@pytest.mark.parametrize("how", ["iid", "dirichlet"])
def test_the_seed_fixes_the_split(how):
    one, again, other = split(how=how), split(how=how), split(how=how, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_an_iid_split_does_not_look_at_labels():
    permuted = np.random.default_rng(0).permutation(LABELS)
    assert all(np.array_equal(a, b) for a, b in zip(split(), split(permuted), strict=True))


def test_a_scaffold_split_keeps_labels_together_in_shares_of_like_size():
    labels = np.random.default_rng(0).zipf(1.6, 5000).clip(max=400)
    shares = split(labels, shares=3, how="scaffold")
    held = [set(labels[share]) for share in shares]
    assert not held[0] & held[1] and not held[0] & held[2] and not held[1] & held[2]
    largest = np.bincount(labels).max()
    assert largest < len(labels) / 2
    assert max(map(len, shares)) <= max(largest, len(labels) / 3 + 1)
    assert all(np.array_equal(a, b) for a, b in zip(shares, split(labels, 3, "scaffold", seed=1), strict=True))


def test_fewer_scaffolds_than_clients_are_refused():
    with pytest.raises(DataError, match="share 10 of domain 'svhn' would have 0 of 2000 .* scaffold split"):
        split(shares=12, how="scaffold")


@pytest.mark.parametrize("how", ["iid", "dirichlet"])
def test_400_shares_cover_every_example_once(how):
    shares = split(np.arange(20_000) % 10, shares=400, how=how, alpha=1.0)
    assert len(shares) == 400
    assert np.array_equal(np.sort(np.concatenate(shares)), np.arange(20_000))


def test_more_clients_than_examples_are_refused():
    with pytest.raises(DataError, match="'svhn' has 2000 examples, too few for 2001 clients; take at most 2000"):
        split(shares=2001)


def test_an_iid_share_below_the_minimum_is_refused_by_name():
    with pytest.raises(DataError, match=r"share \d of domain 'svhn' would have 250 of 2000 examples, below .* 300"):
        split(minimum=300)


def test_a_dirichlet_share_below_the_minimum_is_refused_by_name_and_silently():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=r"share \d+ of domain 'svhn' would have \d of 2000 .*larger alpha"):
            split(shares=40, how="dirichlet", alpha=0.05, minimum=20)


@pytest.mark.parametrize("how", ["dirichlet", "scaffold"])
def test_a_split_by_labels_needs_labels(how):
    with pytest.raises(DataError, match=f"'svhn' has no known label .* a {how} split"):
        split(np.full(100, -1), how=how)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"how": "sorted"}, "iid, dirichlet, scaffold"), ({"shares": 0}, "at least 1"), ({"alpha": 0.0}, "above 0")],
)
def test_wrong_arguments_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        split(**wrong)
