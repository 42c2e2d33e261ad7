"""Lists the methods that `fmtda benchmark` compares: every algorithm's rows, and the references that break privacy.

An algorithm says its rows itself (`strategies.algorithm.BenchmarkRow`). All methods share the network, the data, the
randomised source and the numbers of steps that the settings give.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fmtda.protocol.tables import Scalar, SettingsError
from fmtda.strategies.algorithm import BenchmarkRow
from fmtda.strategies.composition import settings_of
from fmtda.strategies.fed_dann import FedDANN
from fmtda.strategies.fed_mcd import FedMCD
from fmtda.strategies.registry import ALGORITHMS, algorithms
from fmtda.strategies.source_only import SourceOnly


@dataclass(frozen=True)
class Method:
    """A method is one row of the table.

    Attributes
    ----------
    row : BenchmarkRow
        What it is called and what it changes; a reference's name is also what `benchmarking.centralised` calls it.
    strategy : str
        The algorithm whose parameters it takes, which a reference doesn't run.
    """

    row: BenchmarkRow
    strategy: str

    @property
    def name(self) -> str:
        """The name on the command line."""
        return self.row.name

    @property
    def description(self) -> str:
        """One line for people."""
        return self.row.description

    @property
    def group(self) -> str:
        """As of `BenchmarkRow`; ``reference`` is centralised, with the targets' examples moved to the server."""
        return self.row.group

    @property
    def changes(self) -> dict[str, Scalar]:
        """The settings that make the method, by dotted key."""
        return {"strategy": self.strategy, **self.row.changes}

    @property
    def breaks_privacy(self) -> bool:
        """Whether the clients' pictures leave them."""
        return self.group == "reference"

    def own(self, config: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Leave out the parameters of other algorithms: what all methods are given, each takes what it has."""
        return {key: v for key, v in config.items() if key.partition(".")[0] not in {*ALGORITHMS} - {self.strategy}}


REFERENCES = (
    Method(BenchmarkRow("mcd", "MCD on pooled targets (Saito et al. 2018)", "reference"), FedMCD.name),
    Method(BenchmarkRow("dann", "DANN on pooled targets (Ganin et al. 2016)", "reference"), FedDANN.name),
    Method(BenchmarkRow("target-supervised", "trained with the targets' labels", "reference"), SourceOnly.name),
)
"""What `benchmarking.centralised` runs."""

_GROUPS = ("federated", "variant", "reference", "ablation")

_OF_ALGORITHMS = [Method(row, each.name) for each in algorithms("adaptation") for row in each.rows]

_LISTED = sorted([*_OF_ALGORITHMS, *REFERENCES], key=lambda method: _GROUPS.index(method.group))

METHODS: dict[str, Method] = {method.name: method for method in _LISTED}
"""In the order of the tables."""

COMPARED_IN_ABLATION = tuple(method.name for method in _LISTED if method.row.against)
"""What the ablation's lines are read against."""

DECIDED_BY_METHODS = {
    *("strategy", "preset"),
    *(key for method in _LISTED for key, value in method.row.changes.items() if isinstance(value, bool)),
}
"""Settings that a user of the benchmark can't give: they are what is compared."""

SELECTIONS: dict[str, tuple[str, ...]] = {
    "all": tuple(method.name for method in _LISTED if method.group != "ablation"),
    "federated": tuple(method.name for method in _LISTED if method.group == "federated"),
    "references": tuple(method.name for method in _LISTED if method.group == "reference"),
    "ablation": tuple(m.name for m in _LISTED if m.group == "ablation" or m.name in COMPARED_IN_ABLATION),
}
"""Words that stand for several methods."""


def select(words: str, hints: Mapping[str, Scalar]) -> list[Method]:
    """Find the methods that a comma list names, each once, in the order of the tables.

    Parameters
    ----------
    words
        Names of methods and keys of `SELECTIONS`. What a key stands for leaves out methods that don't fit the data;
        a method named by itself is refused then.
    hints
        What the data say (`domains.family.Family.defaults`): an extra that is False there has no meaning for
        them, or is off.

    Raises
    ------
    SettingsError
        For a name that there isn't, for one that doesn't fit the data, and for no name at all.
    """
    chosen: set[str] = set()
    for word in (word.strip() for word in words.split(",") if word.strip()):
        if word in SELECTIONS:
            chosen |= {name for name in SELECTIONS[word] if not _missing(METHODS[name], hints)}
        elif word not in METHODS:
            raise SettingsError(f"--methods {word}: no such method; allowed are {', '.join((*SELECTIONS, *METHODS))}")
        elif missing := _missing(METHODS[word], hints):
            raise SettingsError(f"--methods {word}: this data is adapted to without {missing}; leave the method out")
        else:
            chosen.add(word)
    if not chosen:
        raise SettingsError(f"--methods {words!r}: names no method; allowed are {', '.join((*SELECTIONS, *METHODS))}")
    return [method for method in METHODS.values() if method.name in chosen]


def _missing(method: Method, hints: Mapping[str, Scalar]) -> str:
    """The switches that a method needs and that the data turn off."""
    fields = {entry.key: entry.meaning.by_data for entry in settings_of("adaptation", method.strategy).fields()}
    return ", ".join(key for key in method.row.needs if hints.get(fields[key]) is False)
