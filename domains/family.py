"""What a family is: domains that share their classes and input shape and can be adapted to one another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from domains.examples import DataError, Examples
from protocol.seeds import seed_for

Part = Literal["train", "test"]


class Family(ABC):
    """Domains with the same classes and input shape.

    Attributes
    ----------
    name : str
        The family's name in settings and on the command line.
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
    training : mapping of str to int
        Settings (protocol/settings.py) whose right value depends on how much data there is, and how hard it
        is.
    """

    name: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]
    input_shape: ClassVar[tuple[int, ...]]
    domains: ClassVar[tuple[str, ...]]
    default_source: ClassVar[str]
    default_targets: ClassVar[tuple[str, ...]]
    training: ClassVar[Mapping[str, int]]

    @property
    def defaults(self) -> dict[str, str | int]:
        """What `auto` means in the settings for this data."""
        return {"source": self.default_source, "targets": ",".join(self.default_targets), **self.training}

    def check(self, domains: Sequence[str], data_dir: Path | None) -> None:
        """Refuse, in under a second, what `load` could not load.

        A family that reads files extends this to look at their headers and sizes, never at all of their
        content.

        Parameters
        ----------
        domains : sequence of str
            Domains that are going to be loaded.
        data_dir : Path or None
            Folder with the data files; None where the family needs none.

        Raises
        ------
        DataError
            If a domain is unknown, or a file it needs is missing or truncated.
        """
        for domain in domains:
            if domain not in self.domains:
                raise DataError(
                    f"domain {domain!r} is not in the family {self.name!r}; allowed: {', '.join(self.domains)}"
                )

    @abstractmethod
    def load(self, domain: str, part: Part, data_dir: Path | None, seed: int) -> Examples:
        """One part of one domain.

        Parameters
        ----------
        domain : str
            One of `domains`.
        part : {"train", "test"}
            Nothing that a domain's examples are made of is in both parts.
        data_dir : Path or None
            Folder with the data files; None where the family needs none.
        seed : int
            Fixes everything drawn at random; domains read from files do not depend on it.

        Returns
        -------
        Examples
            Labelled; whoever hands them to a target client takes the labels away.

        Raises
        ------
        DataError
            As `check`, and if a file turns out to be damaged while it is read.
        """

    def generator(self, domain: str, part: Part, seed: int) -> np.random.Generator:
        """A random generator of its own for each part of each domain."""
        return np.random.default_rng(seed_for(seed, self.name, domain, part))
