"""``fmtda benchmark``: methods x seeds, one process after the other, and what they add up to.

What lies in the output folder::

    cells/        one folder a method and seed (benchmarks/cells.py); remove one to have it run again
    bases/        pre-trained networks that the methods of a seed share
    results.json  everything that was reached, and with what
    table.md, accuracy.svg, ablation.svg, bytes.svg, rounds.svg
"""

import json
import shlex
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fmtda.benchmarking.cells import PATHS, Cell, CellFailed, cells_in, write_whole
from fmtda.benchmarking.methods import DECIDED_BY_METHODS, METHODS, Method, select
from fmtda.benchmarking.provenance import provenance
from fmtda.benchmarking.tables import markdown
from fmtda.domains.registry import family
from fmtda.face.interruption import interruptible
from fmtda.face.progress import CellBar, CellLines, shown_duration
from fmtda.protocol.settings import Scalar, SettingsError
from fmtda.server.metrics import ACCURACY
from fmtda.server.run_directory import make_folder
from fmtda.server.startup import check_simulation, check_source
from fmtda.simulation.client_resources import client_options

OPTIONS_OF_THEIR_OWN = ("data", "data-dir", "seed", "output", "resume")
"""Run-config keys that the benchmark's own options decide."""

NOT_FOR_GIT = """# Figures and pictures are worth keeping; what made them is large.
/bases/
/cells/*/*/log.txt
/cells/*/*/run/
"""


@dataclass(frozen=True)
class Request:
    """What the user asked for; paths are absolute."""

    data: str
    data_dir: Path | None
    methods: str
    seeds: int
    output: Path
    config: Mapping[str, Scalar]
    client_cpus: float = 1.0
    client_gpus: float = 0.0

    def command(self, places: str | None = None) -> str:
        """The command line that asks for this; a word may stand for every path."""
        words = ["fmtda", "benchmark", "--data", self.data]
        words += ["--data-dir", places or str(self.data_dir)] if self.data_dir else []
        words += ["--methods", self.methods, "--seeds", str(self.seeds), "--output", places or str(self.output)]
        for key, value in self.config.items():
            words += ["-c", f"{key}={places if places and key in PATHS else value}"]
        return shlex.join([*words, *self.simulate_options()])

    def simulate_options(self) -> tuple[str, ...]:
        """What goes to ``fmtda simulate`` and is no run config."""
        return client_options(self.client_cpus, self.client_gpus)

    def run_config(self) -> dict[str, Scalar]:
        """The run config that all cells share."""
        data_dir = {"data-dir": str(self.data_dir)} if self.data_dir else {}
        return {"base-dir": str(self.output / "bases"), **self.config, "data": self.data, **data_dir}


@dataclass(frozen=True)
class Plan:
    """The cells that were asked for, seed by seed, and those that lie in the folder from earlier sittings."""

    request: Request
    methods: list[Method]
    asked: list[Cell]
    earlier: list[Cell]

    @property
    def waiting(self) -> list[Cell]:
        """Cells that have to be run."""
        return [cell for cell in self.asked if not cell.done]

    def seconds_left(self, waiting: Sequence[Cell]) -> float | None:
        """About how long these cells take: a method as long as it took before, or else as all took on average."""
        took: dict[str, list[float]] = {}
        for cell in (*self.asked, *self.earlier):
            if cell.done and cell.record["process_seconds"] and not cell.record["resumed"]:
                took.setdefault(cell.method.name, []).append(cell.record["process_seconds"])
        if not took:
            return None
        means = {name: statistics.mean(seconds) for name, seconds in took.items()}
        usual = statistics.mean(means.values())
        return sum(means.get(cell.method.name, usual) for cell in waiting)


def plan(request: Request) -> Plan:
    """Look through everything that can be refused before a cell runs.

    Raises
    ------
    SettingsError, DataError
        Naming what was given and what is allowed; also where the folder holds cells made with other settings.
    """
    for key in request.config:
        if key in DECIDED_BY_METHODS:
            raise SettingsError(f"-c {key}: the methods decide this key; choose them with --methods")
        if key in OPTIONS_OF_THEIR_OWN:
            raise SettingsError(f"-c {key}: fmtda benchmark decides this key; see its options with --help")
    _refuse_unusable(request.output)
    shared, options = request.run_config(), request.simulate_options()
    methods = select(request.methods, family(request.data).defaults(request.data_dir, shared))
    places = request.output / "cells"
    asked = [
        Cell(method, seed, shared, places / method.name / f"seed-{seed}", options)
        for seed in range(request.seeds)
        for method in methods
    ]
    folders = {cell.folder for cell in asked}
    earlier = [cell for cell in cells_in(request.output, shared, options) if cell.folder not in folders]
    for cell in (*asked, *earlier):
        cell.refuse_other_settings()
    settings = asked[0].settings
    check_source(settings)
    check_simulation(settings)
    return Plan(request, methods, asked, earlier)


def carry_out(planned: Plan, console: Console) -> bool:
    """Run the cells that are not done, and write results, table and pictures after each.

    Returns
    -------
    bool
        Whether all cells that were asked for are done.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C and SIGTERM, after the cell's process was ended.
    """
    output = planned.request.output
    make_folder(output)
    write_whole(output / ".gitignore", NOT_FOR_GIT)
    waiting = planned.waiting
    cells, done = len(planned.asked), len(planned.asked) - len(waiting)
    progress = (CellBar if console.is_terminal else CellLines)(console, cells, done)
    with closing(progress), interruptible():
        if done:
            progress.note(f"{done} of {cells} cells are done already")
        for place, cell in enumerate(waiting):
            progress.begin(cell.name, planned.seconds_left(waiting[place:]))
            began = time.monotonic()
            try:
                cell.execute(lambda cell=cell: progress.say(*cell.last_lines(1)))
            except CellFailed as failure:
                lines = "".join(f"\n    {line}" for line in failure.lines)
                progress.end(f"{cell.name}: failed, {failure}; the end of {cell.log}:{lines}")
            else:
                reached = cell.record["result"]["average_accuracy"]
                average = "no labels" if reached is None else f"average {reached:.1f} %"
                progress.end(f"{cell.name}: {average}, {time.monotonic() - began:.0f} s")
            write_results(planned)
        if not waiting:
            write_results(planned)
    return not planned.waiting


def write_results(planned: Plan) -> None:
    """Write results.json, table.md and the pictures out of every cell in the folder."""
    from fmtda.benchmarking.plots import draw

    results = collect(planned)
    write_whole(planned.request.output / "results.json", json.dumps(results, indent=1) + "\n")
    write_whole(planned.request.output / "table.md", markdown(results))
    draw(results, planned.request.output)


def collect(planned: Plan) -> dict[str, Any]:
    """What results.json holds; no path and no host name is in it."""
    cells = [cell for cell in (*planned.asked, *planned.earlier) if cell.record]
    shown = {cell.method.name for cell in (*planned.asked, *cells)}
    finished = [cell.record["result"] for cell in cells if cell.done]
    return {
        "command": planned.request.command(places="DIR"),
        **provenance(),
        "data": planned.request.data,
        "metric": finished[0].get("metric", ACCURACY) if finished else ACCURACY,
        "domains": list(planned.asked[0].settings.target_domains),
        "methods": [_described(method) for method in METHODS.values() if method.name in shown],
        "cells": [cell.record for cell in cells],
    }


def print_plan(planned: Plan, console: Console) -> None:
    """What `--dry-run` shows: every cell, whether it is done, and an estimate."""
    table = Table("cell", "method", "state")
    for cell in planned.asked:
        state = "done" if cell.done else "to be continued" if cell.resumable else "to be run"
        table.add_row(cell.name, cell.method.description, state)
    console.print(table)
    left = planned.seconds_left(planned.waiting)
    estimate = "no estimate before a cell is done" if left is None else f"about {shown_duration(left)}"
    console.print(f"{len(planned.waiting)} of {len(planned.asked)} cells to run; {estimate}", highlight=False)


def _described(method: Method) -> dict[str, Any]:
    described = asdict(method)
    return {key: described[key] for key in ("name", "description", "group")} | {"breaks_privacy": method.breaks_privacy}


def _refuse_unusable(output: Path) -> None:
    if output.is_file():
        raise SettingsError(f"--output {output}: this is a file; name a folder")
    known = any((output / name).exists() for name in ("cells", "bases", "results.json"))
    if output.is_dir() and any(output.iterdir()) and not known:
        raise SettingsError(f"--output {output}: the folder holds something else than a benchmark; name a new folder")
