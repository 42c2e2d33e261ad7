"""Holds the family `feature-vectors`: one file of vectors a domain, such as Office-Caltech10's SURF histograms."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from fmtda.domains import feature_files
from fmtda.domains.cache import cached, fingerprint
from fmtda.domains.examples import DataError, Examples
from fmtda.domains.family import DataSpec, Family, Part
from fmtda.protocol.settings import Scalar

# Raised whenever a change here or in feature_files.py changes what is loaded.
RECIPE_VERSION = 1


class FeatureVectors(Family):
    """Reads the user's feature vectors, one file a domain, which is named by the file.

    Half of a domain's examples are its training part, half its test part: within each class, the vectors whose hash is
    up to the median. So the split depends on neither the seed nor the order of the file, and equal vectors of a class
    are in one part. It looks at the labels where there are any. Literature on Office-Caltech10 mostly adapts to all
    target examples and evaluates on the same ones (transductively); here no test example is seen in training, so
    figures are not comparable one to one.

    Steps and rate of pre-training were chosen by the mean accuracy on five held-out folds of the source's training
    part, over the four domains of Office-Caltech10 SURF each as the source, never on another domain. The choice is
    within the folds' spread: 100 steps, or 600 at a rate of 1e-3, are alike.
    """

    name = "feature-vectors"
    kind = "features"
    origin = "your own .npz and .mat files; Office-Caltech10 SURF by hand"
    training: ClassVar = {
        "network": "mlp",
        "scenery": False,
        "pretraining-learning-rate": 4e-3,
        "server-batch": 64,
        "head-batch": 64,
        "network-learning-rate": 2e-4,
        "pretraining-steps": 300,
        "pretraining-batch": 64,
        "plain-steps": 200,
        "server-steps": 50,
        "head-steps": 100,
        "self-training-steps": 40,
        "self-training-batch": 64,
        "self-training-learning-rate": 4e-3,
        "personal-batch": 128,
        "network-batch": 64,
        "network-steps": 50,
    }

    def domains_in(self, data_dir: Path | None) -> tuple[str, ...]:
        return tuple(feature_files.located(data_dir))

    def defaults(self, data_dir: Path | None = None, given: Mapping[str, Scalar] | None = None) -> dict[str, Scalar]:
        """Take the first labelled domain as source, all others as targets, and the classes and shape of its file.

        Raises
        ------
        DataError
            As `domains_in`, and if the source is unknown or unlabelled.
        """
        files = feature_files.located(data_dir)
        given = given or {}
        labelled = (domain for domain, file in files.items() if feature_files.header(file).labels)
        source = str(given.get("source", next(chain(labelled, files))))
        super().check([source], DataSpec(data_dir))
        _, classes = feature_files.read_labels(files[source])
        if "classes" in given:
            classes = tuple(str(given["classes"]).split(","))
        if not classes:
            raise DataError(f"{files[source]} has no labels, which a source needs; name another domain with --source")
        return {
            "source": source,
            "targets": ",".join(domain for domain in files if domain != source),
            "classes": ",".join(classes),
            "input-shape": str(feature_files.header(files[source]).size),
            **self.training,
        }

    def check(self, domains: Sequence[str], spec: DataSpec) -> None:
        super().check(domains, spec)
        files = feature_files.located(spec.data_dir)
        sizes = {domain: feature_files.header(files[domain]).size for domain in domains}
        for domain, size in sizes.items():
            if spec.input_shape and (size,) != spec.input_shape:
                shape = "x".join(map(str, spec.input_shape))
                raise DataError(
                    f"domain {domain!r} has vectors of {size} values ({files[domain]}), but data.input-shape, the "
                    f"source's, is {shape}; all domains need the same features"
                )
            if size != sizes[domains[0]]:
                raise DataError(
                    f"domain {domain!r} has vectors of {size} values, domain {domains[0]!r} of {sizes[domains[0]]}; "
                    "all domains need the same features"
                )

    def load(self, domain: str, part: Part, spec: DataSpec) -> Examples:
        self.check([domain], spec)
        file = feature_files.located(spec.data_dir)[domain]
        key = {
            "family": self.name,
            "domain": domain,
            "part": part,
            "classes": spec.classes,
            "recipe": RECIPE_VERSION,
            "files": fingerprint([file]),
        }
        return cached(key, lambda: _part(file, domain, part, spec.classes))


def _part(file: Path, domain: str, part: Part, classes: tuple[str, ...]) -> Examples:
    """One part of a file, in the order of the vectors' hashes: a file sorted by class comes mixed."""
    features = feature_files.read_features(file)
    labels = _labels(file, domain, classes)
    hashes = _hashes(features)
    in_part = _training(hashes, labels) == (part == "train")
    chosen = np.argsort(hashes, kind="stable")
    chosen = chosen[in_part[chosen]]
    if len(chosen) == 0:
        raise DataError(
            f"{file} has too few different vectors for a training and a test part; two of a class are needed"
        )
    return Examples(torch.from_numpy(features[chosen]), torch.from_numpy(labels[chosen]))


def _labels(file: Path, domain: str, classes: tuple[str, ...]) -> np.ndarray:
    """The file's labels as indices into the run's classes, or into its own where the run has none."""
    labels, own = feature_files.read_labels(file)
    if not classes:
        return labels
    unknown = sorted(own[label] for label in set(labels[labels >= 0].tolist()) if own[label] not in classes)
    if unknown:
        raise DataError(
            f"domain {domain!r} has examples of the class {unknown[0]!r} ({file}); the run's classes are "
            f"{', '.join(classes)}: leave such examples out, or give them the label -1"
        )
    places = np.array([classes.index(name) if name in classes else -1 for name in own] + [-1], dtype=np.int64)
    return places[labels]


def _hashes(features: np.ndarray) -> np.ndarray:
    """uint64 (N,), a number for each vector that looks random and depends on its values alone."""
    rows = (features + 0.0).astype("<f4")  # minus zero becomes zero
    return np.array([int.from_bytes(hashlib.blake2b(row, digest_size=8).digest()) for row in rows], dtype=np.uint64)


def _training(hashes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """bool (N,): of each class, the vectors up to the median of its different hashes."""
    training = np.zeros(len(labels), dtype=bool)
    by_label = np.argsort(labels, kind="stable")
    for group in np.split(by_label, np.flatnonzero(np.diff(labels[by_label])) + 1):
        distinct = np.unique(hashes[group])
        training[group] = hashes[group] <= distinct[(len(distinct) - 1) // 2]
    return training
