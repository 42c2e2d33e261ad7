"""Says what a model's examples are: how they come out of a domain's inputs, and how people see them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

Judge = Callable[[Tensor], dict[str, Any]]
"""From samples to figures of their quality."""


class ExampleKind(ABC):
    """Says what examples are, pictures or graphs of molecules; every model of `generative.registry` says which.

    Settings are any object with the attributes that the kind's methods read.

    Attributes
    ----------
    suffix : str
        Of the file that `write` makes.
    """

    suffix: ClassVar[str]

    @abstractmethod
    def check(self, settings: Any) -> None:
        """Refuse settings whose data can't be brought into this form; looks at no file.

        Raises
        ------
        ValueError
            Naming the key.
        """

    @abstractmethod
    def examples(self, inputs: Any, settings: Any) -> Tensor:
        """Turn a domain's inputs, (N, ...) as `domains` gives them, into the model's examples, (N, ...) on the CPU."""

    @abstractmethod
    def judge(self, real: Tensor, labels: Tensor, settings: Any, seed: int) -> Judge:
        """Make what says how good samples are, as named figures for summary.json.

        Parameters
        ----------
        real : Tensor, (M, ...)
            In the form of the model's examples.
        labels : Tensor, (M,), int64
            Of the real ones, -1 where unknown.
        settings : object
            With `class_names` and what else the kind reads.
        seed : int
            Of whatever is trained to judge.

        Returns
        -------
        callable
            From samples, (N, ...), to the figures; it too raises ValueError for those that can't be judged.

        Raises
        ------
        ValueError
            If these examples can't be judged; the message says why.
        """

    @abstractmethod
    def picture(self, samples: Tensor, settings: Any) -> Tensor:
        """Draw samples side by side: uint8 (3, H, W)."""

    @abstractmethod
    def write(self, samples: Tensor, file: Path, settings: Any) -> None:
        """Write samples for people to look at, whole or not at all."""
