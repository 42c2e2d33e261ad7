"""Lists the methods that `fmtda benchmark` compares: what each changes in the run config, whether it breaks privacy.

All of them share the network, the data, the randomised source and the numbers of steps that the run config gives.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fmtda.protocol.settings import EXTRAS, Scalar, SettingsError

Group = Literal["federated", "reference", "variant", "ablation"]


@dataclass(frozen=True)
class Method:
    """A method is one row of the table.

    Attributes
    ----------
    name : str
        As on the command line; a reference's name is also what `fmtda.benchmarking.centralised` calls it.
    description : str
        One line for people.
    group : str
        ``federated``; ``reference``, centralised with the targets' pictures moved to the server; ``variant``, another
        form of the default preset; ``ablation``, an extra alone or left out.
    changes : mapping
        Run-config keys that make the method.
    needs : tuple of str
        Extras without which it would be the same as another method; data that has no such thing leaves it out.
    """

    name: str
    description: str
    group: Group
    changes: Mapping[str, Scalar] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    @property
    def runs_dualadapt(self) -> bool:
        """Whether it is DualAdapt in some form."""
        return not self.breaks_privacy and "strategy" not in self.changes

    @property
    def breaks_privacy(self) -> bool:
        """Whether the clients' pictures leave them."""
        return self.group == "reference"


def _alone(extra: str) -> Method:
    switches = {"randomise": True, "scenery": True} if extra == "scenery" else {extra: True}
    with_what = "randomise and scenery" if extra == "scenery" else extra
    changes: dict[str, Scalar] = {"preset": "paper", **switches}
    needs = ("scenery",) if extra == "scenery" else ()
    return Method(f"paper+{extra}", f"preset paper with {with_what} alone", "ablation", changes, needs)


def _left_out(extra: str) -> Method:
    switches = {"randomise": False, "scenery": False} if extra == "randomise" else {extra: False}
    without = "randomise and the scenery in it" if extra == "randomise" else extra
    return Method(f"default-{extra}", f"preset default without {without}", "ablation", switches, (extra,))


_LISTED = [
    Method("source-only", "F_g as pre-trained; nobody adapts", "federated", {"strategy": "source-only"}),
    Method("adabn", "BatchNorm statistics of each client's own (Li et al. 2016)", "federated", {"strategy": "adabn"}),
    Method(
        "fedavg-self-training",
        "clients train on confident pseudo-labels, models are averaged",
        "federated",
        {"strategy": "fedavg-self-training"},
    ),
    Method("fed-mcd", "naive federated MCD: clients without a source term", "federated", {"strategy": "fed-mcd"}),
    Method(
        "fed-dann",
        "clients against a discriminator, source features sent",
        "federated",
        {"strategy": "fed-dann"},
    ),
    Method("dualadapt-paper", "DualAdapt as published (Yao et al. 2022)", "federated", {"preset": "paper"}),
    Method("dualadapt", "DualAdapt with the default preset's extras", "federated"),
    Method("dualadapt-no-scenery", "without knowledge of the targets", "variant", {"scenery": False}, ("scenery",)),
    Method("dualadapt-personalise", "at the end each client trains its own copy", "variant", {"personalise": True}),
    Method("mcd", "MCD on pooled targets (Saito et al. 2018)", "reference"),
    Method("dann", "DANN on pooled targets (Ganin et al. 2016)", "reference"),
    Method("target-supervised", "trained with the targets' labels", "reference"),
    *(_alone(extra) for extra in EXTRAS),
    *(_left_out(extra) for extra in EXTRAS if extra != "scenery"),  # that one is dualadapt-no-scenery
    Method("default-eq5", "preset default without Eq. 5: F_l starts as F_g", "ablation", {"client-steps": 0}),
    Method("default-eq6", "preset default without Eq. 6 and fine-tuning", "ablation", {"server-steps": 0}),
    Method(
        "default-both",
        "preset default without either: what each client gains alone",
        "ablation",
        {"client-steps": 0, "server-steps": 0},
    ),
]

METHODS: dict[str, Method] = {method.name: method for method in _LISTED}
"""In the order of the tables."""

COMPARED_IN_ABLATION = ("dualadapt-paper", "dualadapt", "dualadapt-no-scenery")
"""What the ablation's lines are read against."""

DECIDED_BY_METHODS = ("strategy", "preset", *EXTRAS, "personalise")
"""Run-config keys that a user of the benchmark can't set: they are what is compared."""

OF_DUALADAPT_ALONE = {
    *("components", "client-steps", "client-batch", "client-learning-rate", "discrepancy-weight", "cache-features"),
    *("align-learning-rate", "guard", "local-batch-norm", "batch-norm-share", "batch-norm-prior", "inference"),
    *("self-train", "self-train-steps", "self-train-batch", "self-train-learning-rate"),
    *("personalise", "personalise-steps", "personalise-batch"),
}
"""Run-config keys that change no result of another method."""

OF_AN_EXTRA = {"local-batch-norm": "batch-norm-", "self-train": "self-train-", "personalise": "personalise-"}
"""How the run-config keys begin that change nothing where this extra is off."""

SELECTIONS: dict[str, tuple[str, ...]] = {
    "all": tuple(method.name for method in _LISTED if method.group != "ablation"),
    "federated": tuple(method.name for method in _LISTED if method.group == "federated"),
    "references": tuple(method.name for method in _LISTED if method.group == "reference"),
    "ablation": tuple(m.name for m in _LISTED if m.group == "ablation" or m.name in COMPARED_IN_ABLATION),
}
"""Words that stand for several methods."""


def select(words: str, family_defaults: Mapping[str, Scalar]) -> list[Method]:
    """Find the methods that a comma list names, each once, in the order of the tables.

    Parameters
    ----------
    words
        Names of methods and keys of `SELECTIONS`. What a key stands for leaves out methods that don't fit the data;
        a method named by itself is refused then.
    family_defaults
        `domains.family.Family.defaults`: an extra that is False there has no meaning for the data, or is off for it.

    Raises
    ------
    SettingsError
        For a name that there isn't, for one that doesn't fit the data, and for no name at all.
    """
    chosen: set[str] = set()
    for word in (word.strip() for word in words.split(",") if word.strip()):
        if word in SELECTIONS:
            chosen |= {name for name in SELECTIONS[word] if not _missing(METHODS[name], family_defaults)}
        elif word not in METHODS:
            raise SettingsError(f"--methods {word}: no such method; allowed are {', '.join((*SELECTIONS, *METHODS))}")
        elif missing := _missing(METHODS[word], family_defaults):
            raise SettingsError(f"--methods {word}: this data is adapted to without {missing}; leave the method out")
        else:
            chosen.add(word)
    if not chosen:
        raise SettingsError(f"--methods {words!r}: names no method; allowed are {', '.join((*SELECTIONS, *METHODS))}")
    return [method for method in METHODS.values() if method.name in chosen]


def _missing(method: Method, family_defaults: Mapping[str, Scalar]) -> str:
    return ", ".join(extra for extra in method.needs if family_defaults.get(extra) is False)
