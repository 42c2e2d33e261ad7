"""Holds the families of molecules: `qm9` and `zinc250k` out of their files, and `fragments`, which needs none.

Inputs are graphs, int8 (N, V, V), as `generative.molecules` defines them. A label is the number of the molecule's
Bemis-Murcko scaffold, 0 for the most frequent one, so that a split by label is a split by scaffold. RDKit, of the
extra `generative`, is imported when something is loaded.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from fmtda.domains.cache import cache_root, cached, fingerprint
from fmtda.domains.examples import DataError, Examples
from fmtda.domains.family import DataSpec, Family, Part
from fmtda.domains.image_listing import hashed_part
from fmtda.protocol.settings import Scalar

if TYPE_CHECKING:
    from fmtda.generative.molecules import GraphFormat, Reading, Refusals

# Raised whenever a change here, in molecule_files.py, fragments.py or generative/molecules.py changes a graph.
RECIPE_VERSION = 1

TEST_SHARE = 0.1


class Molecules(Family):
    """This is what the families of molecules share: one domain, called as the family.

    A tenth is the test part, by a hash of the canonical SMILES: equal molecules are in one part, and neither the seed
    nor the order of the file changes where one belongs. The classes are those of a graph's nodes, the table of atoms.
    """

    kind = "molecules"
    classes: ClassVar[tuple[str, ...]] = ("C", "N", "O", "F")
    training: ClassVar = {}

    def defaults(self, data_dir: Path | None = None, given: Mapping[str, Scalar] | None = None) -> dict[str, Scalar]:
        """Do as every family, but adapt nothing to anything: the clients hold the domain itself."""
        return {**super().defaults(data_dir, given), "targets": self.name}

    def check(self, domains: Sequence[str], spec: DataSpec) -> None:
        super().check(domains, spec)
        if find_spec("rdkit") is None:
            raise DataError(f"{self.name} needs rdkit, not installed here; install it: pip install 'fmtda[generative]'")

    def form(self) -> GraphFormat:
        """Return the table of atoms and the size of the graphs."""
        from fmtda.generative.molecules import GraphFormat

        return GraphFormat(self.classes, self.input_shape[0])

    def load(self, domain: str, part: Part, spec: DataSpec) -> Examples:
        self.check([domain], spec)
        return cached(self._key(spec, part), lambda: self._prepared(spec, part))

    def account(self, spec: DataSpec) -> str:
        """Say how many molecules were refused or changed, and why; the file that it names lists those refused."""
        self.load(self.name, "train", spec)
        file = self._account_file(spec)
        return file.read_text().partition("\n")[0] if file.exists() else ""

    def readings(self, spec: DataSpec) -> tuple[list[Reading], Refusals]:
        """Read all molecules anew, and account for those that were refused."""
        from fmtda.domains.fragments import enumerated
        from fmtda.generative.molecules import read_many

        return read_many(enumerate(enumerated(self.form().size), 1), self.form())

    def _prepared(self, spec: DataSpec, part: Part) -> Examples:
        """One part; the other one, which came with it, is put into the cache."""
        from fmtda.domains.molecule_files import scaffold_labels

        readings, refusals = self.readings(spec)
        labels = scaffold_labels(readings)
        tested = np.array([hashed_part(reading.smiles, TEST_SHARE) == "test" for reading in readings])
        graphs = np.stack([reading.graph for reading in readings])
        train = Examples(torch.from_numpy(graphs[~tested]), torch.from_numpy(labels[~tested]))
        test = Examples(torch.from_numpy(graphs[tested]), torch.from_numpy(labels[tested]))
        self._tell(spec, refusals)
        if part == "train":
            cached(self._key(spec, "test"), lambda: test)
            return train
        cached(self._key(spec, "train"), lambda: train)
        return test

    def _tell(self, spec: DataSpec, refusals: Refusals) -> None:
        if not refusals.count and not refusals.lost:
            return
        file = self._account_file(spec)
        lines = [f"{reason}, {line}" for reason, lines in refusals.by_reason.items() for line in lines]
        told = f"{self.name}: {refusals}" + (f"; left out are those in {file}" if lines else "")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join([told, *lines]) + "\n")
        except OSError as error:
            told = "\n".join([f"{self.name}: {refusals}; {file} cannot be written ({error}):", *lines])
        print(f"fmtda: {told}", file=sys.stderr, flush=True)

    def _account_file(self, spec: DataSpec) -> Path:
        digest = hashlib.sha256(json.dumps(self._key(spec, "train")).encode()).hexdigest()[:16]
        return cache_root() / f"{self.name}-left-out-{digest}.txt"

    def _key(self, spec: DataSpec, part: Part) -> dict[str, object]:
        return {"family": self.name, "domain": self.name, "part": part, "recipe": RECIPE_VERSION}


class Fragments(Molecules):
    """Holds 6,858 molecules of up to nine atoms (C, N, O, F), put together from fragments."""

    name = "fragments"
    origin = "embedded: enumerated with RDKit"
    input_shape = (9, 9)
    domains = ("fragments",)
    default_source = "fragments"
    default_targets = ("fragments",)


class MoleculeFile(Molecules):
    """Reads molecules out of a file in the data folder.

    Attributes
    ----------
    file : str
        Its name.
    """

    file: ClassVar[str]

    def check(self, domains: Sequence[str], spec: DataSpec) -> None:
        super().check(domains, spec)
        self._located(spec)

    def readings(self, spec: DataSpec) -> tuple[list[Reading], Refusals]:
        from fmtda.domains.molecule_files import read_file

        return read_file(self._located(spec), self.form())

    def _located(self, spec: DataSpec) -> Path:
        from fmtda.domains.molecule_files import located

        return located(self.file, spec.data_dir)

    def _key(self, spec: DataSpec, part: Part) -> dict[str, object]:
        return super()._key(spec, part) | {"files": fingerprint([self._located(spec)])}


class QM9(MoleculeFile):
    """Reads QM9 (Ramakrishnan et al. 2014): 133,247 molecules of up to nine atoms, C, N, O and F."""

    name = "qm9"
    origin = "qm9.csv by hand"
    file = "qm9.csv"
    input_shape = (9, 9)
    domains = ("qm9",)
    default_source = "qm9"
    default_targets = ("qm9",)


class Zinc250k(MoleculeFile):
    """Reads ZINC-250k (Irwin et al. 2012, drawn by Gomez-Bombarelli et al.): drug-like molecules of up to 38 atoms."""

    name = "zinc250k"
    origin = "zinc250k.smi.gz by hand"
    file = "zinc250k.smi.gz"
    classes = ("C", "N", "O", "F", "P", "S", "Cl", "Br", "I")
    input_shape = (38, 38)
    domains = ("zinc250k",)
    default_source = "zinc250k"
    default_targets = ("zinc250k",)
    # Each of its 38 nodes has a coupling in every turn.
    training: ClassVar = {"adjacency-turns": 1, "adjacency-width": 128, "node-turns": 1}
