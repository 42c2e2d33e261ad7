"""Says what a family is: domains that share their classes and input shape and can be adapted to one another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from fmtda.domains.examples import DataError, Examples
from fmtda.protocol.seeds import seed_for
from fmtda.protocol.settings import Scalar

Part = Literal["train", "test"]

HINTS = {
    "source": "the labelled domain if the user names none",
    "targets": "the unlabelled domains if the user names none, as a comma list",
    "classes": "class names in the order of the labels, as a comma list",
    "input-shape": "of one input, as 3x32x32",
    "network": "G and F by name",
    "standardise": "whether inputs are standardised one by one; False where that destroys something",
    "randomise": "whether the source is changed at random; False where nothing is known to change",
    "scenery": "whether source digits are laid on photographs; False where there are no digits",
    "own-statistics": "whether BatchNorm statistics of a client's own help; False where they harm",
    "pretraining-steps": "gradient steps on the labelled source before the first round",
    "pretraining-batch": "examples in one of them",
    "pretraining-learning-rate": "peak of their one-cycle schedule",
    "plain-steps": "gradient steps of the reference without any extra",
    "server-steps": "gradient steps of the server in a round",
    "server-batch": "source examples in one of them",
    "head-steps": "gradient steps of a client in a round on a classifier alone",
    "head-batch": "examples, or places, in one of them",
    "network-steps": "gradient steps of a client in a round on a whole network",
    "network-batch": "examples in one of them",
    "network-learning-rate": "their step size under Adam",
    "self-training-steps": "gradient steps of a client on its own predictions before it predicts",
    "self-training-batch": "examples in one of them",
    "self-training-learning-rate": "their step size under Adam",
    "personal-batch": "examples in a gradient step of the long training of a client's own network",
    "adjacency-turns": "couplings of each node in a flow over bonds",
    "adjacency-width": "hidden units of their networks",
    "node-turns": "couplings of each node in a flow over atoms",
}
"""What data can say of a run's settings, for fields of any table to take as their `auto` (`by_data`).

They are said in the field's terms and not in an algorithm's, so that a family knows no algorithm and an algorithm no
family. The first four come from `Family.defaults`, the others from `Family.training`.
"""


@dataclass(frozen=True)
class DataSpec:
    """Says what a domain is read with; it is hashable.

    Attributes
    ----------
    data_dir : Path or None
        Folder with the data files; None where the family needs none.
    seed : int
        Fixes everything drawn at random; examples read from files do not depend on it.
    classes : tuple of str
        Class names in the order of the labels. The server decides them; a client's folder may show fewer.
    input_shape : tuple of int
        Shape that every input is brought to: (3, height, width) for pictures, (D,) for feature vectors.
    """

    data_dir: Path | None = None
    seed: int = 0
    classes: tuple[str, ...] = ()
    input_shape: tuple[int, ...] = ()


class Family(ABC):
    """Gathers domains that have the same classes and input shape.

    A family whose domains, classes or input shape are only known from the user's files overrides `domains_in` and
    `defaults`; the others set the class attributes.

    Attributes
    ----------
    name : str
        The family's name in settings and on the command line.
    kind : str
        How its inputs are prepared and randomised: a key of `adaptation.registry.AUGMENTATIONS`.
    origin : str
        Where its examples come from, for people.
    segmentation : bool
        Whether labels are maps, one class a pixel, and not one class an example.
    classes : tuple of str
        Name of each class; a label is an index into it.
    input_shape : tuple of int
        Shape of one input, (channels, height, width) for pictures.
    domains : tuple of str
        Names of all domains; each can be the source or a target.
    default_source : str
        The labelled domain if the user names none.
    default_targets : tuple of str
        The unlabelled domains if the user names none.
    looked_at : str
        What `check` looks at of the files, for people.
    training : mapping
        Those of `HINTS` whose right value depends on how much data there is, of what kind, and how hard it is.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    origin: ClassVar[str]
    segmentation: ClassVar[bool] = False
    looked_at: ClassVar[str] = "names, headers and sizes"
    classes: ClassVar[tuple[str, ...]] = ()
    input_shape: ClassVar[tuple[int, ...]] = ()
    domains: ClassVar[tuple[str, ...]] = ()
    default_source: ClassVar[str]
    default_targets: ClassVar[tuple[str, ...]]
    training: ClassVar[Mapping[str, Scalar]]

    def domains_in(self, data_dir: Path | None) -> tuple[str, ...]:
        """Name the domains there are, in this folder where they are only known from files.

        Raises
        ------
        DataError
            If the folder is needed and missing, or holds no domain.
        """
        return self.domains

    def defaults(self, data_dir: Path | None = None, given: Mapping[str, Scalar] | None = None) -> dict[str, Scalar]:
        """Say what `auto` means for this data, by `HINTS`: source, targets, classes, input shape and training.

        Parameters
        ----------
        data_dir : Path or None
            The user's folder.
        given : mapping
            What the user set of these; a source named there is no default target.

        Raises
        ------
        DataError
            As `domains_in`.
        """
        source = (given or {}).get("source", self.default_source)
        return {
            "source": self.default_source,
            "targets": ",".join(target for target in self.default_targets if target != source),
            "classes": ",".join(self.classes),
            "input-shape": "x".join(map(str, self.input_shape)),
            **self.training,
        }

    def check(self, domains: Sequence[str], spec: DataSpec) -> None:
        """Refuse, in under a second, what `load` could not load.

        A family that reads files extends this to look at their names, headers and sizes, never at all of their
        content.

        Parameters
        ----------
        domains : sequence of str
            Domains that are going to be loaded.
        spec : DataSpec

        Raises
        ------
        DataError
            If a domain is unknown, or a file it needs is missing or truncated.
        """
        allowed = self.domains_in(spec.data_dir)
        for domain in domains:
            if domain not in allowed:
                raise DataError(f"domain {domain!r} is not in the family {self.name!r}; allowed: {', '.join(allowed)}")
        for own, asked in ((self.classes, spec.classes), (self.input_shape, spec.input_shape)):
            if own and asked and own != asked:
                raise DataError(f"{self.name} has {own}, which can't be set to {asked}; leave it at auto")

    @abstractmethod
    def load(self, domain: str, part: Part, spec: DataSpec) -> Examples:
        """Load one part of one domain.

        Parameters
        ----------
        domain : str
            One of `domains_in`.
        part : {"train", "test"}
            Nothing that a domain's examples are made of is in both parts.
        spec : DataSpec

        Returns
        -------
        Examples
            Labelled where the files are; whoever hands them to a target client takes the labels away.

        Raises
        ------
        DataError
            As `check`, and if a file turns out to be damaged while it is read.
        """

    def account(self, spec: DataSpec) -> str:
        """Say in one line, for people, what was left out of the files; empty where nothing was.

        Raises
        ------
        DataError
            As `load`.
        """
        return ""

    def generator(self, domain: str, part: Part, seed: int) -> np.random.Generator:
        """Make a random generator of its own for each part of each domain."""
        return np.random.default_rng(seed_for(seed, self.name, domain, part))
