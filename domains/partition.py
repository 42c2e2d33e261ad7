"""Splits one domain between the clients that hold a share of it: by flwr-datasets' partitioners, or by scaffold."""

from __future__ import annotations

import heapq
import warnings
from typing import Literal, get_args

import numpy as np
import torch

from fmtda.domains.examples import DataError, Examples
from fmtda.protocol.seeds import seed_for

How = Literal["iid", "dirichlet", "scaffold"]


def split_between(
    labels: np.ndarray,
    shares: int,
    how: How,
    alpha: float,
    seed: int,
    minimum: int,
    domain: str,
) -> list[np.ndarray]:
    """Choose which examples each share gets.

    Parameters
    ----------
    labels : numpy.ndarray
        int (N,), the examples' labels. An IID split does not look at them.
    shares : int
        Number of clients that the domain is split between, at least 1.
    how : {"iid", "dirichlet", "scaffold"}
        At random, into shares whose sizes differ by at most 1; or each class in proportions drawn from a
        Dirichlet distribution (Hsu et al. 2019, "Measuring the Effects of Non-Identical Data Distribution"),
        which a simulation study can do and a real federation cannot, as it needs the labels; or all examples of
        a label to one share, the largest label first, always to the smallest share: of molecules, whose labels
        are their scaffolds, no two clients then have a scaffold in common.
    alpha : float
        Concentration of the Dirichlet distribution, above 0: small ones give each client few classes.
    seed : int
        Fixes the split; a scaffold split does not depend on it. Two parts of a domain split with the same seed get
        the same Dirichlet proportions, unless one of them had to be drawn again to meet `minimum`.
    minimum : int
        Fewest examples that a share may have.
    domain : str
        The domain's name, for messages.

    Returns
    -------
    list of numpy.ndarray
        int64 indices of each share, sorted; disjoint, and together 0 to N - 1.

    Raises
    ------
    DataError
        If there are more shares than examples, if a share has fewer than `minimum`, or if a split by labels is
        asked for where they are unknown.
    ValueError
        If `how` is unknown, or `shares` or `alpha` is not positive.
    """
    if how not in get_args(How):
        raise ValueError(f"how={how!r} must be one of {', '.join(get_args(How))}")
    if shares < 1:
        raise ValueError(f"shares={shares} must be at least 1")
    if not alpha > 0:
        raise ValueError(f"alpha={alpha} must be above 0")
    labels = np.asarray(labels)
    if shares > len(labels):
        raise DataError(
            f"domain {domain!r} has {len(labels)} examples, too few for {shares} clients; "
            f"take at most {len(labels)} clients for it"
        )
    if how != "iid" and (labels < 0).any():
        raise DataError(
            f"domain {domain!r} has no known label for each example (none, or a map of them), which a {how} "
            "split needs; take iid"
        )

    # The partitioners keep the given order (the IID one cuts it into pieces), so chance enters here.
    order = np.random.default_rng([seed, len(labels)]).permutation(len(labels))
    if how == "iid":
        split = _iid(order, shares)
    elif how == "scaffold":
        split = _whole_labels(labels, shares)
    else:
        split = _dirichlet(order, labels, shares, alpha, seed, minimum)

    smallest = min(range(shares), key=lambda share: len(split[share]))
    if len(split[smallest]) < minimum:
        mend = "take fewer clients or a larger alpha" if how == "dirichlet" else "take fewer clients"
        raise DataError(
            f"share {smallest} of domain {domain!r} would have {len(split[smallest])} of {len(labels)} examples, "
            f"below the minimum of {minimum}, in a {how} split between {shares} clients; {mend}"
        )
    return split


def split_labels(examples: Examples) -> np.ndarray:
    """Return the labels that a split goes by: int (N,); unknown ones (-1) where an example has a whole map of them."""
    labels = examples.labels
    return labels.numpy() if isinstance(labels, torch.Tensor) and labels.ndim == 1 else np.full(len(examples), -1)


def held_out_share(examples: Examples, share: int, shares: int) -> Examples:
    """Take a client's part of its domain's test examples: every `shares`-th, from number `share` on."""
    return examples.select(np.arange(len(examples))[share::shares])


def limited_split(
    labels: np.ndarray,
    limit: int,
    shares: int,
    how: How,
    alpha: float,
    seed: int,
    minimum: int,
    domain: str,
) -> list[np.ndarray]:
    """Do as `split_between` for a random part of at most `limit` examples (0: all), by the run's root seed.

    Server and clients ask for a domain's shares here, so that a split which is impossible is refused early.
    """
    kept = np.arange(len(labels))
    if 0 < limit < len(labels):
        draw = np.random.default_rng(seed_for(seed, domain, "target limit"))
        kept = np.sort(draw.choice(len(labels), limit, replace=False))
    parts = split_between(labels[kept], shares, how, alpha, seed_for(seed, domain, "split") % 2**31, minimum, domain)
    return [kept[part] for part in parts]


def _iid(order: np.ndarray, shares: int) -> list[np.ndarray]:
    from flwr_datasets.partitioner import IidPartitioner

    partitioner = IidPartitioner(num_partitions=shares)
    partitioner.dataset = _dataset(index=order)
    return _indices(partitioner, shares)


def _dirichlet(
    order: np.ndarray, labels: np.ndarray, shares: int, alpha: float, seed: int, minimum: int
) -> list[np.ndarray]:
    from flwr_datasets.partitioner import DirichletPartitioner

    def partition(smallest: int) -> list[np.ndarray]:
        partitioner = DirichletPartitioner(shares, "label", float(alpha), min_partition_size=smallest, seed=seed)
        partitioner.dataset = _dataset(index=order, label=labels[order])
        return _indices(partitioner, shares)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The specified min_partition_size")
        try:
            return partition(minimum)
        except ValueError:
            # Eleven draws failed. The partitioner doesn't say whom they failed; a split without a minimum
            # shows it.
            return partition(0)


def _whole_labels(labels: np.ndarray, shares: int) -> list[np.ndarray]:
    _, groups, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sizes = [(0, share) for share in range(shares)]
    share_of = np.empty(len(counts), dtype=np.int64)
    for group in np.argsort(-counts, kind="stable"):
        size, share = sizes[0]
        share_of[group] = share
        heapq.heapreplace(sizes, (size + int(counts[group]), share))
    return [np.flatnonzero(share_of[groups] == share) for share in range(shares)]


def _dataset(**columns: np.ndarray):
    """A Hugging Face dataset in memory."""
    # Imported here, as it takes seconds, which most commands need not pay.
    from datasets import Dataset

    return Dataset.from_dict(columns)


def _indices(partitioner, shares: int) -> list[np.ndarray]:
    return [
        np.sort(np.asarray(partitioner.load_partition(share)["index"][:], dtype=np.int64)) for share in range(shares)
    ]
