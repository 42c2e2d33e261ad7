"""Judges sampled molecules: validity, uniqueness, novelty, and properties beside those of the training data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import QED, Crippen, Descriptors
from scipy.stats import wasserstein_distance

from fmtda.generative.model import unreported
from fmtda.generative.molecules import BONDS, GraphFormat, skeleton, to_molecule


@dataclass(frozen=True)
class MoleculeQuality:
    """Counts what became of sampled graphs; `valid`, `unique` and `novel` are percentages.

    A graph is valid if it has an atom, RDKit sanitises it, and all its atoms hang together.

    Attributes
    ----------
    corrected : bool
        Whether graphs went through `corrected` first. Figures without are never mixed with figures with it.
    count : int
        Graphs that were sampled.
    empty, refused, apart : int
        Those without an atom, those that RDKit refuses (for valencies above all), those of several parts.
    charged : int
        Valid ones that owe it to the charges that bonds give away (`generative.molecules.charges`).
    dangling : int
        Valid ones with bonds that lead to a place without an atom, which count for nothing.
    smiles : tuple of str
        Canonical SMILES of the valid ones, in the order of sampling.
    known : int
        Distinct valid ones that are training molecules.
    """

    corrected: bool
    count: int
    empty: int
    refused: int
    apart: int
    charged: int
    dangling: int
    smiles: tuple[str, ...]
    known: int

    @property
    def valid(self) -> float:
        """Return the valid ones in percent of the sampled graphs."""
        return _percent(len(self.smiles), self.count)

    @property
    def unique(self) -> float:
        """Return the distinct molecules in percent of the valid ones."""
        return _percent(len(set(self.smiles)), len(self.smiles))

    @property
    def novel(self) -> float:
        """Return the distinct molecules that are no training molecules, in percent of the distinct ones."""
        distinct = len(set(self.smiles))
        return _percent(distinct - self.known, distinct)

    @property
    def product(self) -> float:
        """Return valid x unique x novel: distinct new molecules in percent of the sampled graphs."""
        return self.valid * self.unique * self.novel / 1e4

    def figures(self) -> dict[str, float | int | bool]:
        """Return all figures for a JSON file, the SMILES left out."""
        figures = {name: value for name, value in asdict(self).items() if name != "smiles"}
        return figures | {name: getattr(self, name) for name in ("valid", "unique", "novel", "product")}


def assess(
    graphs: np.ndarray,
    form: GraphFormat,
    training: Collection[str],
    correct: bool = False,
    advance: Callable[[int], None] = unreported,
) -> MoleculeQuality:
    """Count what sampled graphs are worth.

    Parameters
    ----------
    graphs : numpy.ndarray
        int8 (N, V, V).
    form : GraphFormat
    training : collection of str
        Canonical SMILES of the training graphs (`generative.molecules.all_smiles`); a set.
    correct : bool
        Mend each graph by `corrected` before it is looked at.
    advance : callable
        Called with 1 after each graph.
    """
    counts = dict.fromkeys(("empty", "refused", "apart", "charged", "dangling"), 0)
    smiles = []
    with rdBase.BlockLogs():
        for graph in graphs:
            advance(1)
            if not graph.diagonal().any():
                counts["empty"] += 1
                continue
            molecule = corrected(graph, form) if correct else to_molecule(graph, form)
            if molecule is None:
                counts["refused"] += 1
            elif len(Chem.GetMolFrags(molecule)) > 1:
                counts["apart"] += 1
            else:
                smiles.append(Chem.MolToSmiles(molecule))
                charged = any(atom.GetFormalCharge() for atom in molecule.GetAtoms())
                counts["dangling"] += bool(graph[graph.diagonal() == 0].any())
                counts["charged"] += charged and to_molecule(graph, form, charged=False) is None
    known = sum(text in training for text in set(smiles))
    return MoleculeQuality(correct, len(graphs), **counts, smiles=tuple(smiles), known=known)


def corrected(graph: np.ndarray, form: GraphFormat) -> Chem.Mol | None:
    """Correct valencies as MoFlow does (Zang and Wang 2020, section 3.5), and return the molecule of the largest part.

    While an atom has bonds beyond its valency, its highest bond is lowered by one.
    """
    molecule = skeleton(graph, form)
    while molecule is not None:
        problems = [problem for problem in Chem.DetectChemistryProblems(molecule) if hasattr(problem, "GetAtomIdx")]
        if not problems:
            break
        bonds = molecule.GetAtomWithIdx(problems[0].GetAtomIdx()).GetBonds()
        if not bonds:
            return None
        highest = max(bonds, key=lambda bond: (bond.GetBondTypeAsDouble(), -bond.GetIdx()))
        ends, order = (highest.GetBeginAtomIdx(), highest.GetEndAtomIdx()), int(highest.GetBondTypeAsDouble())
        molecule.RemoveBond(*ends)
        if order > 1:
            molecule.AddBond(*ends, BONDS[order - 1])
    if molecule is None or Chem.SanitizeMol(molecule, catchErrors=True):
        return None
    return max(Chem.GetMolFrags(molecule, asMols=True), key=lambda part: part.GetNumAtoms())


def properties(
    smiles: Sequence[str], form: GraphFormat, advance: Callable[[int], None] = unreported
) -> dict[str, np.ndarray]:
    """Compute what is compared between samples and training data.

    Parameters
    ----------
    smiles : sequence of str
        Of M molecules.
    form : GraphFormat
    advance : callable
        Called with 1 after each molecule.

    Returns
    -------
    dict of str to numpy.ndarray
        float (M,): ``QED`` (0 to 1), ``logP`` (Crippen's), ``molecular weight`` (Dalton), and for each atom of the
        table the number of those in a molecule (``C atoms``). ``ring size``: a value a ring, of all molecules.
    """
    rows, sizes = [], []
    for text in smiles:
        molecule = Chem.MolFromSmiles(text)
        symbols = [atom.GetSymbol() for atom in molecule.GetAtoms()]
        kinds = [symbols.count(symbol) for symbol in form.atoms]
        log_p = Crippen.MolLogP(molecule)  # type: ignore[attr-defined]  # RDKit's stubs lack what is bound at import
        weight = Descriptors.MolWt(molecule)  # type: ignore[attr-defined]  # likewise
        rows.append([QED.qed(molecule), log_p, weight, *kinds])
        sizes += [len(ring) for ring in molecule.GetRingInfo().AtomRings()]
        advance(1)
    names = ["QED", "logP", "molecular weight", *(f"{symbol} atoms" for symbol in form.atoms)]
    columns = np.array(rows, dtype=float).reshape(-1, len(names)).T
    return {**dict(zip(names, columns, strict=True)), "ring size": np.array(sizes, dtype=float)}


def distances(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    """Compute the Wasserstein distance of every property between two sets of molecules, in the property's unit.

    None where one of them has no value, as of ring sizes without a ring.
    """
    return {
        name: float(wasserstein_distance(one[name], other[name])) if len(one[name]) and len(other[name]) else None
        for name in one
    }


def half_against_half(values: Mapping[str, np.ndarray], seed: int) -> dict[str, float | None]:
    """Compute the `distances` of two random halves of one set: what no difference looks like."""
    rng = np.random.default_rng(seed)
    shuffled = {name: rng.permutation(column) for name, column in values.items()}
    halves = [{name: column[start::2] for name, column in shuffled.items()} for start in (0, 1)]
    return distances(*halves)


def histograms(sets: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, list[float]]]:
    """Count how every property is spread in each of several sets of molecules.

    Parameters
    ----------
    sets : mapping of str to properties
        By any name but ``edges``.

    Returns
    -------
    dict of str to dict
        By property: ``edges``, the same for all sets, and by the name of a set its share between two edges each.
    """
    found = {}
    for name in next(iter(sets.values())):
        columns = {label: values[name] for label, values in sets.items()}
        edges = _edges(np.concatenate(list(columns.values())))
        shares = {
            label: (np.histogram(column, edges)[0] / max(1, len(column))).tolist() for label, column in columns.items()
        }
        found[name] = {"edges": edges.tolist(), **shares}
    return found


def draw_properties(sets: Mapping[str, Mapping[str, np.ndarray]], file: Path) -> None:
    """Draw histograms of all properties, a panel each and a line for each set of molecules.

    Parameters
    ----------
    sets : mapping of str to properties
        By the name that the legend shows.
    file : Path
        SVG or PNG by its ending.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(next(iter(sets.values())))
    columns = 4
    rows = -(-len(names) // columns)
    figure, panels = pyplot.subplots(rows, columns, figsize=(2.6 * columns, 2.1 * rows), layout="constrained")
    for axes, name in zip(panels.flat, names, strict=False):
        values = [column[name] for column in sets.values()]
        edges = _edges(np.concatenate(values))
        for label, value in zip(sets, values, strict=True):
            weights = np.full(len(value), 1 / max(1, len(value)))
            axes.hist(value, edges, weights=weights, histtype="step", label=label, linewidth=1.2)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in list(panels.flat)[len(names) :]:
        axes.axis("off")
    figure.legend(
        *panels.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(sets), frameon=False
    )
    with matplotlib.rc_context({"svg.hashsalt": "fmtda"}):
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
    pyplot.close(figure)


def _edges(values: np.ndarray) -> np.ndarray:
    """Edges of bins: one a whole number where all values are whole, 40 otherwise."""
    if len(values) == 0:
        return np.arange(2)
    whole = (values % 1 == 0).all()
    return np.histogram_bin_edges(values, np.arange(values.min() - 0.5, values.max() + 1) if whole else 40)


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0
