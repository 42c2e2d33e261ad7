"""What every generative model is: a loss that a gradient step minimises, a way to sample, and how it is registered."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from fmtda.generative.example_kind import ExampleKind
from fmtda.protocol.tables import Scalar, SettingsError, Table


def unreported(steps: int) -> None:
    """Do nothing, where nobody watches the progress of sampling."""


class GenerativeModel(nn.Module, ABC):
    """This is a distribution over data, fitted by descending `loss` and drawn from by `sample`.

    Whoever trains it needs no more than these three members, whichever the model::

        loss = model.loss(batch, generator)
        loss.backward()

    Data go in and come out in the same form: pictures as uint8 (N, C, H, W), values 0 to 255. What range the
    model computes in is its own affair. Its state dict holds the learned float tensors alone, so that it can be
    averaged over clients; tables that follow from the settings are built anew.
    """

    @abstractmethod
    def loss(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Compute what training minimises.

        Parameters
        ----------
        batch : Tensor, (N, ...)
            Training examples as they are stored, on the model's device.
        generator : torch.Generator
            Source of every draw. On whichever device it is, the draws are moved to that of the batch.

        Returns
        -------
        Tensor, scalar
            Mean over the examples.
        """

    @abstractmethod
    def sample(self, count: int, generator: torch.Generator, advance: Callable[[int], None] = unreported) -> Tensor:
        """Draw a batch of new examples.

        Parameters
        ----------
        count : int
            N, how many; all of them are in memory at once.
        generator : torch.Generator
            Source of every draw; equal states give equal examples.
        advance : callable
            Called with the number of steps made since its last call; they add up to `sampling_steps`.

        Returns
        -------
        Tensor, (N, ...)
            On the model's device, in the form of the training examples.
        """

    @property
    @abstractmethod
    def sampling_steps(self) -> int:
        """How many steps `sample` makes for a batch of any size."""


class ModelSettings(Table):
    """The settings of one model, a table under the model's name; a child a model, beside it.

    Attributes
    ----------
    usual : mapping of str to scalar
        What `auto` is in a run of this model, by dotted key, where the data don't say.
    """

    usual: ClassVar[Mapping[str, Scalar]] = {}

    def sampled_by(self, sampler: str | None, steps: int | None) -> dict[str, Scalar]:
        """Which settings change, by key, for another way to sample; a model that has several overrides this.

        Raises
        ------
        SettingsError
            If it has not.
        """
        for option, value in {"--sampler": sampler, "--steps": steps}.items():
            if value is not None:
                raise SettingsError(f"{option} {value}: this model has one way to sample; leave it out")
        return {}


class RegisteredModel(NamedTuple):
    """A model as the registry knows it.

    Attributes
    ----------
    settings : type
        Its table.
    build : callable
        From the settings of a run, whose `model` is that table, to the model; its weights come from torch's global
        generator.
    packages : tuple of str
        Names under which it imports what the extra `generative` brings.
    kind : ExampleKind
        What its examples are.
    """

    settings: type[ModelSettings]
    build: Callable[[Any], GenerativeModel]
    packages: tuple[str, ...]
    kind: ExampleKind
