"""A client as an algorithm sees it: its name, its examples, the run's settings, its folder and its random numbers.

`clients.identity` fills it, in simulation and in deployment alike. What stays with a client between messages are files
in its own folder, which never travel: Flower's ``context.state`` does not survive into a resumed run, and would travel
with every simulated message.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fmtda.adaptation.inputs import Inputs
from fmtda.adaptation.mixture import hold_out
from fmtda.adaptation.registry import AUGMENTATIONS
from fmtda.domains.examples import Examples
from fmtda.domains.reading_rights import check_readable
from fmtda.domains.registry import family
from fmtda.protocol.runtime import choose_device
from fmtda.protocol.seeds import generator_for, seed_for
from fmtda.protocol.settings import AdaptationSettings, RunSettings


@dataclass(frozen=True)
class Client:
    """One client as a message finds it.

    Attributes
    ----------
    name
        ``domain/share``; seeds and order derive from it.
    settings
        The run's settings, out of the message.
    round
        The round the message belongs to, 0 before the first.
    folder
        Where what stays with the client is written.
    train, test
        The client's own examples. Labels serve evaluation only.
    shares_examples
        Whether its owner agreed to show a few test examples in the report of the run.
    shares_evaluation
        Whether its owner lets the numbers of its evaluation leave in a run with privacy.
    epsilon_limit
        What its owner lets the uploads of a run give away at most, None for no limit.
    simulated
        Whether all its data lies on the machine of whoever runs the federation.
    elsewhere
        A second folder that is looked into for what `folder` lacks: on the server, where its uploads are kept.
    """

    name: str
    settings: RunSettings
    round: int
    folder: Path
    train: Examples
    test: Examples
    shares_examples: bool = False
    shares_evaluation: bool = False
    epsilon_limit: float | None = None
    simulated: bool = False
    elsewhere: Path | None = None

    def generator(self, purpose: str) -> torch.Generator:
        """Return the client's random numbers for this round and purpose; whoever knows the run's seed knows them."""
        return generator_for(self.settings.seed, self.name, self.round, purpose)

    @property
    def segmentation(self) -> bool:
        """Whether labels are maps, one class a pixel."""
        return family(self.settings.data.name).segmentation

    def inputs(self, examples: Examples) -> Inputs:
        """Make network inputs of examples of domain adaptation, on the run's device."""
        settings = cast(AdaptationSettings, self.settings)
        augmentation = AUGMENTATIONS[family(settings.data.name).kind]
        return Inputs(examples.inputs, augmentation, settings.inputs.standardise, choose_device(settings.device))

    def divided(self, examples: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Divide examples: indices of those that a mixture is fitted to, and of those that only watch.

        The same in every round, so that no example is ever of both kinds.
        """
        fitted, held_out = hold_out(examples, seed_for(self.settings.seed, self.name, "mixture hold-out"))
        return torch.from_numpy(fitted), torch.from_numpy(held_out)

    def keep(self, file: str, **groups: Mapping[str, torch.Tensor]) -> None:
        """Write named groups of tensors to a file of the folder.

        A kill leaves the file as it was or as it shall be, never half of either. A group called ``model`` comes back
        as ``kept(file)["model"]``.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        aside = self.folder / f".{file}.{os.getpid()}"
        tensors = {f"{group}.{name}": tensor for group, named in groups.items() for name, tensor in named.items()}
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, aside)
        aside.rename(self.folder / file)

    def kept(self, file: str) -> dict[str, dict[str, torch.Tensor]] | None:
        """Read what was last written there, by group.

        Returns
        -------
        dict or None
            None where nothing is: a client may have lost its folder, or not have trained yet.

        Raises
        ------
        Unreadable
            If something is there that this account may not read.
        """
        for folder in (self.folder, self.elsewhere):
            if folder is not None and (found := read_groups(folder / file)) is not None:
                return found
        return None

    def forget(self, file: str) -> None:
        """Remove a file of the folder, if it is there."""
        (self.folder / file).unlink(missing_ok=True)


def read_groups(file: Path) -> dict[str, dict[str, torch.Tensor]] | None:
    """Read the groups of tensors in a file; None where there is none, or one that is damaged.

    Raises
    ------
    Unreadable
        If it is there, and this account may not read it.
    """
    try:
        check_readable(file)
        tensors = load_file(file)
    except (FileNotFoundError, NotADirectoryError, SafetensorError):
        return None
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        group, _, rest = name.partition(".")
        groups.setdefault(group, {})[rest] = tensor
    return groups
