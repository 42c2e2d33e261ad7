"""Pools the targets' examples in one place, as no federation has them, for the centralised references to train on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fmtda.adaptation.inputs import Inputs
from fmtda.adaptation.registry import AUGMENTATIONS
from fmtda.domains.examples import Examples
from fmtda.domains.partition import limited_split, split_labels
from fmtda.domains.registry import family, spec_of
from fmtda.protocol.seeds import generator_for
from fmtda.protocol.settings import AdaptationSettings


@dataclass(frozen=True)
class PooledTargets:
    """A pool of all target domains; places in it count through the domains in turn.

    Attributes
    ----------
    domains : tuple of str
    trained, tested : tuple of Examples
        Each domain's two parts, labels included: what its clients share in a federated run.
    inputs : tuple of Inputs
        The training parts as network inputs.
    """

    domains: tuple[str, ...]
    trained: tuple[Examples, ...]
    tested: tuple[Examples, ...]
    inputs: tuple[Inputs, ...]

    @classmethod
    def load(cls, settings: AdaptationSettings, device: torch.device) -> "PooledTargets":
        """Load the run's target domains.

        Raises
        ------
        DataError
            If one can't be read.
        """
        data, spec = family(settings.data.name), spec_of(settings)
        trained, tested = [], []
        for domain in settings.target_domains:
            examples = data.load(domain, "train", spec)
            labels, how = split_labels(examples), (settings.data.alpha, settings.seed, settings.data.min_examples)
            (kept,) = limited_split(labels, settings.data.target_limit, 1, "iid", *how, domain)
            trained.append(examples.select(kept))
            tested.append(data.load(domain, "test", spec))
        augmentation = AUGMENTATIONS[data.kind]
        inputs = tuple(Inputs(each.inputs, augmentation, settings.inputs.standardise, device) for each in trained)
        return cls(settings.target_domains, tuple(trained), tuple(tested), inputs)

    def __len__(self) -> int:
        return sum(len(each) for each in self.trained)

    @property
    def labelled(self) -> bool:
        """Whether every domain's training part has labels."""
        return all(examples.labelled for examples in self.trained)

    def with_known_labels(self) -> "PooledTargets":
        """Leave out the training examples that have no label."""
        trained = tuple(examples.with_known_labels() for examples in self.trained)
        inputs = tuple(
            Inputs(examples.inputs, own.augmentation, own.standardise, own.device)
            for examples, own in zip(trained, self.inputs, strict=True)
        )
        return replace(self, trained=trained, inputs=inputs)

    def __getitem__(self, chosen: Tensor) -> Tensor:
        """Prepared inputs at these places, (B, ...), ordered by domain."""
        return torch.cat([self.inputs[domain][places] for domain, places in self._by_domain(chosen)])

    def batch(self, chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return changed views of the inputs at these places, and their labels, int64."""
        parts = list(self._by_domain(chosen))
        views = torch.cat([self.inputs[domain].view(places, generator) for domain, places in parts])
        labels = torch.cat([self.trained[domain].labels[places] for domain, places in parts])
        return views, labels.long().to(views.device)

    def watched(self, count: int, seed: int) -> list[Tensor]:
        """Return at most `count` prepared inputs of each domain, the same for the same seed."""
        orders = [
            torch.randperm(len(inputs), generator=generator_for(seed, domain, "watched"))
            for domain, inputs in zip(self.domains, self.inputs, strict=True)
        ]
        return [inputs[order[:count]] for inputs, order in zip(self.inputs, orders, strict=True)]

    def _by_domain(self, chosen: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Each domain that is among the places, with the places in it."""
        first = 0
        for domain, inputs in enumerate(self.inputs):
            places = chosen[(chosen >= first) & (chosen < first + len(inputs))] - first
            first += len(inputs)
            if len(places):
                yield domain, places
