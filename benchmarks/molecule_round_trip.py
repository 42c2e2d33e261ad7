"""Counts the molecules of a file that come back from their graphs as they were.

    python -m benchmarks.molecule_round_trip --data qm9 --data-dir DIR --output FILE

A molecule comes back if the canonical SMILES of its graph is its own, stereochemistry and isotopes aside, which no
graph holds. The others have charges or radicals that bonds don't tell. The SMILES are compared whatever `read` says of
a molecule, so that a loss which it does not see shows too.
"""

import argparse
import json
from pathlib import Path

from rdkit import Chem, rdBase

from fmtda.benchmarking.provenance import provenance
from fmtda.domains import molecule_files
from fmtda.domains.molecules import MoleculeFile
from fmtda.domains.registry import family
from fmtda.generative.molecules import GraphFormat, MoleculeRefusedError, read, to_smiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("qm9", "zinc250k"), default="qm9")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, help="take each n-th line of the file")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    data = family(arguments.data)
    assert isinstance(data, MoleculeFile)
    lines = molecule_files.lines(molecule_files.located(data.file, arguments.data_dir))
    result = {
        "command": f"python -m benchmarks.molecule_round_trip --data {arguments.data} --every {arguments.every}",
        **provenance(),
        "molecules": compared([smiles for number, smiles in lines if number % arguments.every == 0], data.form()),
    }
    print(json.dumps(result, indent=2))
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")


def compared(lines: list[str], form: GraphFormat) -> dict[str, int]:
    """Count SMILES by what became of each.

    Returns
    -------
    dict of str to int
        ``read``; ``refused``; ``equal``: came back; ``changed``: came back as another molecule; ``changed silently``:
        of these, those that the account does not count as such; ``with stereochemistry``: of all that have a graph.
    """
    counts = dict.fromkeys(("read", "refused", "equal", "changed", "changed silently", "with stereochemistry"), 0)
    with rdBase.BlockLogs():
        for smiles in lines:
            counts["read"] += 1
            try:
                reading = read(smiles, form)
            except MoleculeRefusedError:
                counts["refused"] += 1
                continue
            molecule = Chem.MolFromSmiles(smiles)
            flat = Chem.MolToSmiles(molecule, isomericSmiles=False)
            equal = to_smiles(reading.graph, form) == Chem.CanonSmiles(flat)
            counts["equal" if equal else "changed"] += 1
            counts["changed silently"] += not equal and not reading.lost
            counts["with stereochemistry"] += flat != Chem.MolToSmiles(molecule)
    return counts


if __name__ == "__main__":
    main()
