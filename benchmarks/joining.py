"""Measures what a client that joins late reaches, and what that does to the clients already there.

    python -m benchmarks.joining --output benchmarks/results/joining-digits
    python -m benchmarks.joining --data digit-five --data-dir DIR --output benchmarks/results/joining-digit-five \\
        -c data.source=mnist -c data.targets=mnist-m,svhn,usps,fonts

Each target in turn is left out of the first rounds, and joins a federation of the others. Its accuracy after 0, 1, 2
and 5 rounds is compared with the same where F_l starts at F_g (`dualadapt.joining.start=global`), and with a run in
which everybody was there from the start, after as many rounds; the accuracy of the others with that, and with a run in
which nobody joined.

Default preset, the whole run driver with real messages in one process. A cell is one run:

- `start`: everybody from the start;
- `TARGET-before`: the others' rounds before the joining, from which the ones below go on;
- `TARGET-nearest`, `TARGET-global`: it joins, starting at the blend of its nearest, or at F_g;
- `TARGET-bare`: the round of the joining alone, in which it learns nothing by itself: what the blend brings, and F_g;
- `TARGET-without`: it does not join.

Cells that are done are not run again, one that was cut short goes on from its last whole round; ``--only`` takes some
of them, so that two processes can share a folder. The folder gets ``results.json`` and ``table.md`` after every cell.
"""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmtda.adaptation.heads import decisive
from fmtda.benchmarking.cells import write_whole
from fmtda.benchmarking.command_line import command_line, refusals
from fmtda.benchmarking.provenance import provenance
from fmtda.benchmarking.settings import adaptation_settings
from fmtda.protocol.settings import RunSettings
from fmtda.protocol.tables import Scalar
from fmtda.server.app import run
from fmtda.server.branching import branch, with_joining
from fmtda.server.metrics import mean
from fmtda.server.progress import Lines
from fmtda.server.run_directory import read_metrics
from fmtda.simulation.in_process import InProcessGrid

AFTER = (0, 1, 2, 5)
"""Rounds since the joining that are told."""

NEVER = 100_000
"""As `evaluate-every`: in the last round alone, for evaluating takes most of the time."""

START, SELF_TRAINING = "dualadapt.joining.start", "dualadapt.self-training.on"

NOT_FOR_GIT = "# Figures are worth keeping; what made them is large.\n/bases/\n/runs/\n"


@dataclass(frozen=True)
class JoiningPlan:
    """A plan of what is measured where.

    Attributes
    ----------
    output
        The folder.
    config
        Run config of all cells; paths in it are absolute.
    before
        Whole rounds before the one in which a client joins.
    """

    output: Path
    config: dict[str, Scalar]
    before: int

    @property
    def targets(self) -> tuple[str, ...]:
        """All target domains."""
        return adaptation_settings(self.config).target_domains

    @property
    def cells(self) -> list[str]:
        """The cells' names, in the order in which they are run."""
        kinds = ("before", "nearest", "global", "bare", "without")
        return ["start", *(f"{target}-{kind}" for target in self.targets for kind in kinds)]

    def round_after(self, rounds: int) -> int:
        """Count to the round that ends so many rounds after the joining."""
        return self.before + 1 + rounds

    def folder(self, cell: str) -> Path:
        """Name a cell's run directory."""
        return self.output / "runs" / cell

    def result(self, cell: str) -> dict[str, Any] | None:
        """Read what a cell reached, None before it is done."""
        file = self.output / "cells" / f"{cell}.json"
        return json.loads(file.read_text()) if file.exists() else None

    def measure(self, cell: str) -> None:
        """Run a cell to its end and keep what it reached."""
        began = time.monotonic()
        target, _, kind = cell.rpartition("-")
        others = ",".join(each for each in self.targets if each != target)
        if kind == "before":
            self._finish(cell, adaptation_settings({**self.config, "data.targets": others}), [(self.before, NEVER)])
        elif kind == "without":
            settings: RunSettings = adaptation_settings({**self.config, "data.targets": others, "rounds": self.before})
            self._go_on(cell, f"{target}-before", settings)
            self._finish(cell, settings, [(self.round_after(AFTER[-1]), NEVER)])
        elif kind in ("nearest", "global", "bare"):
            self._run_again(f"{target}-before")
            start = {} if kind == "bare" else {START: kind}
            settings = with_joining(self.folder(f"{target}-before"), target, 1, 0, start)
            if kind == "bare":
                settings = settings.changed({SELF_TRAINING: False})
            self._go_on(cell, f"{target}-before", settings)
            longer = [(self.round_after(2), 1), (self.round_after(AFTER[-1]), NEVER)]
            self._finish(cell, settings, [(self.round_after(0), 1)] if kind == "bare" else longer)
        else:
            stages = [(self.before, NEVER), (self.round_after(2), 1), (self.round_after(AFTER[-1]), NEVER)]
            self._finish(cell, adaptation_settings(self.config), stages)
        lines = read_metrics(self.folder(cell))
        result = {
            "seconds": time.monotonic() - began,
            "accuracy": {
                str(line["round"]): {domain: decisive(heads, "mean") for domain, heads in line["accuracy"].items()}
                for line in lines
                if line.get("evaluated", True)
            },
            "nearest": {name: news["nearest"] for line in lines for name, news in line.get("newcomers", {}).items()
                        if news["weight"] == 0},
            "failures": sum(len(line["failures"]) for line in lines),
        }  # fmt: skip
        if kind == "bare":
            result["heads"] = lines[-1]["accuracy"][target]
        (self.output / "cells").mkdir(parents=True, exist_ok=True)
        write_whole(self.output / "cells" / f"{cell}.json", json.dumps(result, indent=1) + "\n")

    def _go_on(self, cell: str, earlier: str, settings: RunSettings) -> None:
        """Begin a cell as the copy of another."""
        if not (self.folder(cell) / "config.toml").exists():
            self._run_again(earlier)
            branch(self.folder(earlier), settings.changed({"output": str(self.folder(cell))}))

    def _run_again(self, cell: str) -> None:
        """Make a cell's run directory, where only its figures were kept."""
        if not (self.folder(cell) / "summary.json").exists():
            self.measure(cell)

    def _finish(self, cell: str, settings: RunSettings, stages: list[tuple[int, int]]) -> None:
        """Run rounds up to each stage's, evaluating as often as it says; those that are done are left alone."""
        folder = self.folder(cell)
        for rounds, every in stages:
            lines = read_metrics(folder)
            if lines and lines[-1]["round"] >= rounds:
                continue
            begun = (folder / "config.toml").exists()
            if not begun:
                shutil.rmtree(folder, ignore_errors=True)
            stage: dict[str, Scalar] = {
                "rounds": rounds,
                "evaluate-every": every,
                "output": str(folder),
                "resume": begun,
            }
            staged = settings.changed(stage)
            run(InProcessGrid.simulated(staged.supernodes), staged, Lines())


def collect(plan: JoiningPlan, shown_config: dict[str, Scalar]) -> dict[str, Any]:
    """Collect what results.json holds."""
    done = {cell: result for cell in plan.cells if (result := plan.result(cell))}
    return {
        "command": "python -m benchmarks.joining",
        "config": shown_config,
        "rounds_before": plan.before,
        "targets": list(plan.targets),
        "cells": done,
        **provenance(),
    }


def table(results: dict[str, Any]) -> str:
    """Write what was measured as Markdown tables; cells that are not done yet show a dash."""
    cells, targets, joined_in = results["cells"], results["targets"], results["rounds_before"] + 1

    def reached(cell: str, domain: str, after: int) -> float | None:
        return cells.get(cell, {}).get("accuracy", {}).get(str(joined_in + after), {}).get(domain)

    lines = [f"Joining in round {joined_in}: accuracy in percent of the client that joins, by rounds since.", ""]
    lines.append(f"| joins | F_l starts at | {' | '.join(f'after {after}' for after in AFTER)} | nearest (weight) |")
    lines.append("|---|---|" + "---:|" * len(AFTER) + "---|")
    ways = {"nearest": "the blend of its nearest", "global": "F_g", "start": "(there from the start)"}
    for target in targets:
        for way, words in ways.items():
            cell = way if way == "start" else f"{target}-{way}"
            figures = " | ".join(_shown(reached(cell, target, after)) for after in AFTER)
            found: dict[str, Any] = next(iter(cells.get(cell, {}).get("nearest", {}).values()), {})
            nearest = ", ".join(f"{name} ({each['weight']:.2f})" for name, each in found.items())
            lines.append(f"| {target} | {words} | {figures} | {nearest} |")
    lines += ["", f"The others, on average, {AFTER[-1]} rounds after the joining.", ""]
    lines.append("| joins | with it | it there from the start | without it | largest fall against without |")
    lines.append("|---|---:|---:|---:|---:|")
    for target in targets:
        others = [each for each in targets if each != target]
        columns = [
            [reached(c, each, AFTER[-1]) for each in others]
            for c in (f"{target}-nearest", "start", f"{target}-without")
        ]
        means = [None if None in column else mean(column) for column in columns]
        fall = None
        if means[0] is not None and means[2] is not None:
            pairs = zip(columns[0], columns[2], strict=True)
            fall = max(without - with_it for with_it, without in pairs if with_it is not None and without is not None)
        lines.append(f"| {target} | {' | '.join(map(_shown, [*means, fall]))} |")
    lines += ["", "What it starts with: in the round of the joining, before it learns anything by itself.", ""]
    lines += ["| joins | F_g | the blend of its nearest | mean of the two |", "|---|---:|---:|---:|"]
    for target in targets:
        heads = cells.get(f"{target}-bare", {}).get("heads", {})
        by_head = [heads.get(head) for head in ("global", "local", "mean")]
        lines.append(f"| {target} | {' | '.join(map(_shown, by_head))} |")
    return "\n".join(lines) + "\n"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder; one that is there is gone on with")
    parser.add_argument("--data", default="digits", help="family of domains")
    parser.add_argument("--data-dir", type=Path, help="folder with the data files")
    parser.add_argument("--before", type=int, default=2, help="rounds before the one in which a client joins")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="WORDS", help="comma list of targets and of the word start")
    parser.add_argument("--base-dir", type=Path, help="folder of pre-trained networks; default: OUTPUT/bases")
    given = parser.parse_args()
    output = given.output.absolute()
    config: dict[str, Scalar] = {"data.name": given.data, "seed": given.seed, "rounds": given.before}
    config |= given.config
    places = {"pretraining.base-dir": str((given.base_dir or output / "bases").absolute())}
    places |= {"data.dir": str(given.data_dir.absolute())} if given.data_dir else {}
    plan = JoiningPlan(output, {**config, **places}, given.before)
    words = [word for word in given.only.split(",") if word]
    with refusals():
        cells = plan.cells
        output.mkdir(parents=True, exist_ok=True)
        write_whole(output / ".gitignore", NOT_FOR_GIT)
        for cell in cells:
            wanted = not words or cell in words or cell.rpartition("-")[0] in words
            if wanted and plan.result(cell) is None:
                print(f"cell {cell}", flush=True)
                plan.measure(cell)
            results = collect(plan, config)
            write_whole(output / "results.json", json.dumps(results, indent=1) + "\n")
            write_whole(output / "table.md", table(results))
    print(table(results))


if __name__ == "__main__":
    main()
