"""Carries out a sitting of a benchmark: methods x seeds, one process after the other, and what they add up to.

What lies in the output folder, in which many sittings can add cells to one table::

    cells/        one folder a method and seed (benchmarking/cells.py); remove one to have it run again
    bases/        pre-trained networks that the methods of a seed share
    results.json  everything that was reached, and with what
    table.md, accuracy.svg, ablation.svg, bytes.svg, rounds.svg
"""

import json
import shlex
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fmtda.benchmarking.cells import PLACES, BenchmarkCell, CellFailed, cells_in, write_whole
from fmtda.benchmarking.methods import DECIDED_BY_METHODS, METHODS, Method, select
from fmtda.benchmarking.provenance import provenance
from fmtda.benchmarking.tables import markdown
from fmtda.domains.registry import family
from fmtda.protocol.settings import Scalar, SettingsError
from fmtda.server.metrics import ACCURACY
from fmtda.server.run_directory import make_folder
from fmtda.server.startup import check_simulation, check_source
from fmtda.simulation.client_resources import client_options

OPTIONS_OF_THEIR_OWN = ("data.name", "data.dir", "seed", "output", "resume")
"""Run-config keys that the benchmark's own options decide."""

NOT_FOR_GIT = """# Figures and pictures are worth keeping; what made them is large.
/bases/
/cells/*/*/log.txt
/cells/*/*/run/
"""


class CellProgress(Protocol):
    """A display of a benchmark's progress, as `carry_out` calls it."""

    def begin(self, name: str, seconds_left: float | None) -> None:
        """Show that a cell begins; about so many seconds are left for it and those after it, if that is known."""

    def say(self, line: str = "") -> None:
        """Show what the cell's process printed last."""

    def end(self, text: str) -> None:
        """Show that a cell has ended, well or not."""

    def note(self, text: str) -> None:
        """Show something that a person should read."""


@dataclass(frozen=True)
class BenchmarkRequest:
    """A wish for cells: data, methods and seeds, and the run config that all of them share; paths are absolute."""

    data: str
    data_dir: Path | None
    methods: str
    seeds: int
    output: Path
    config: Mapping[str, Scalar]
    client_cpus: float = 1.0
    client_gpus: float = 0.0

    def command(self, places: str | None = None) -> str:
        """Write the command line that asks for this; a word may stand for every path."""
        words = ["fmtda", "benchmark", "--data", self.data]
        words += ["--data-dir", places or str(self.data_dir)] if self.data_dir else []
        words += ["--methods", self.methods, "--seeds", str(self.seeds), "--output", places or str(self.output)]
        for key, value in self.config.items():
            shown = str(value).lower() if isinstance(value, bool) else value
            words += ["-c", f"{key}={places if places and key in PLACES else shown}"]
        return shlex.join([*words, *self.simulate_options()])

    def simulate_options(self) -> tuple[str, ...]:
        """Write the options of ``fmtda simulate`` that are no run config."""
        return client_options(self.client_cpus, self.client_gpus)

    def run_config(self) -> dict[str, Scalar]:
        """Make the run config that all cells share."""
        folder = {"data.dir": str(self.data_dir)} if self.data_dir else {}
        bases = {"pretraining.base-dir": str(self.output / "bases")}
        return {**bases, **self.config, "data.name": self.data, **folder}


@dataclass(frozen=True)
class BenchmarkPlan:
    """A list of the cells that were asked for, seed by seed, and those that lie in the folder from earlier sittings."""

    request: BenchmarkRequest
    methods: list[Method]
    asked: list[BenchmarkCell]
    earlier: list[BenchmarkCell]

    @property
    def waiting(self) -> list[BenchmarkCell]:
        """Cells that have to be run."""
        return [cell for cell in self.asked if not cell.done]

    def seconds_left(self, waiting: Sequence[BenchmarkCell]) -> float | None:
        """Estimate how long these cells take: a method as long as it took before, or else as all took on average."""
        took: dict[str, list[float]] = {}
        for cell in (*self.asked, *self.earlier):
            record = cell.record
            if record and record["result"] and record["process_seconds"] and not record["resumed"]:
                took.setdefault(cell.method.name, []).append(record["process_seconds"])
        if not took:
            return None
        means = {name: statistics.mean(seconds) for name, seconds in took.items()}
        usual = statistics.mean(means.values())
        return sum(means.get(cell.method.name, usual) for cell in waiting)


def plan(request: BenchmarkRequest) -> BenchmarkPlan:
    """Look through everything that can be refused before a cell runs.

    Raises
    ------
    SettingsError, DataError
        Naming what was given and what is allowed; also where the folder holds cells made with other settings.
    """
    for key in request.config:
        if key in DECIDED_BY_METHODS:
            raise SettingsError(f"{key}: the methods decide this key; choose them with --methods")
        if key in OPTIONS_OF_THEIR_OWN:
            raise SettingsError(f"{key}: fmtda benchmark decides this key; see its options with --help")
    _refuse_unusable(request.output)
    shared, options = request.run_config(), request.simulate_options()
    of_data = {key.removeprefix("data."): value for key, value in shared.items() if key.startswith("data.")}
    methods = select(request.methods, family(request.data).defaults(request.data_dir, of_data))
    places = request.output / "cells"
    asked = [
        BenchmarkCell(method, seed, shared, places / method.name / f"seed-{seed}", options)
        for seed in range(request.seeds)
        for method in methods
    ]
    folders = {cell.folder for cell in asked}
    earlier = [cell for cell in cells_in(request.output, shared, options) if cell.folder not in folders]
    _refuse_unknown(request.config, [*asked, *earlier])
    for cell in (*asked, *earlier):
        cell.refuse_other_settings()
    settings, *_ = [cell.settings for cell in asked]  # a key may be wrong for one method alone
    check_source(settings)
    check_simulation(settings)
    return BenchmarkPlan(request, methods, asked, earlier)


def carry_out(planned: BenchmarkPlan, progress: CellProgress) -> bool:
    """Run the cells that are not done, and write results, table and pictures after each.

    Parameters
    ----------
    planned
        What `plan` returned.
    progress
        A display that is told what happens.

    Returns
    -------
    bool
        Whether all cells that were asked for are done.

    Raises
    ------
    KeyboardInterrupt
        As it came, after the cell's process was ended.
    """
    output = planned.request.output
    make_folder(output)
    write_whole(output / ".gitignore", NOT_FOR_GIT)
    waiting = planned.waiting
    cells, done = len(planned.asked), len(planned.asked) - len(waiting)
    if done:
        progress.note(f"{done} of {cells} cells are done already")
    for place, cell in enumerate(waiting):
        progress.begin(cell.name, planned.seconds_left(waiting[place:]))
        progress.end(_ending_of(cell, progress))
        write_results(planned)
    if not waiting:
        write_results(planned)
    return not planned.waiting


def write_results(planned: BenchmarkPlan) -> None:
    """Write results.json, table.md and the pictures out of every cell in the folder."""
    from fmtda.benchmarking.plots import draw

    results = collect(planned)
    write_whole(planned.request.output / "results.json", json.dumps(results, indent=1) + "\n")
    write_whole(planned.request.output / "table.md", markdown(results))
    draw(results, planned.request.output)


def collect(planned: BenchmarkPlan) -> dict[str, Any]:
    """Collect what results.json holds; no path and no host name is in it."""
    cells = [cell for cell in (*planned.asked, *planned.earlier) if cell.record]
    shown = {cell.method.name for cell in (*planned.asked, *cells)}
    finished = [cell.result for cell in cells if cell.result]
    return {
        "command": planned.request.command(places="DIR"),
        **provenance(),
        "data": planned.request.data,
        "metric": finished[0].get("metric", ACCURACY) if finished else ACCURACY,
        "domains": list(planned.asked[0].settings.target_domains),
        "methods": [_described(method) for method in METHODS.values() if method.name in shown],
        "cells": [cell.record for cell in cells],
    }


def _ending_of(cell: BenchmarkCell, progress: CellProgress) -> str:
    """Run a cell; the line that says how it ended."""
    began = time.monotonic()
    try:
        result = cell.execute(lambda: progress.say(*cell.last_lines(1)))
    except CellFailed as failure:
        lines = "".join(f"\n    {line}" for line in failure.lines)
        return f"{cell.name}: failed, {failure}; the end of {cell.log}:{lines}"
    reached = result["average_accuracy"]
    average = "no labels" if reached is None else f"average {reached:.1f} %"
    return f"{cell.name}: {average}, {time.monotonic() - began:.0f} s"


def _described(method: Method) -> dict[str, Any]:
    return {
        "name": method.name,
        "description": method.description,
        "group": method.group,
        "strategy": method.strategy,
        "breaks_privacy": method.breaks_privacy,
    }


def _refuse_unknown(config: Mapping[str, Scalar], cells: Sequence[BenchmarkCell]) -> None:
    """Refuse a parameter of an algorithm that no method runs, now or in an earlier sitting."""
    for key in config:
        if not any(key in cell.run_config for cell in cells):
            raise SettingsError(f"{key}={config[key]}: none of the methods has such a setting; leave it out")


def _refuse_unusable(output: Path) -> None:
    if output.is_file():
        raise SettingsError(f"--output {output}: this is a file; name a folder")
    known = any((output / name).exists() for name in ("cells", "bases", "results.json"))
    if output.is_dir() and any(output.iterdir()) and not known:
        raise SettingsError(f"--output {output}: the folder holds something else than a benchmark; name a new folder")
