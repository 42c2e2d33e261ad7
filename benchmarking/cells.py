"""Runs a cell of a benchmark, one method with one seed, in a process of its own, and keeps it in a folder of its own.

::

    cells/METHOD/seed-N/
      cell.json    the method's effective settings, and once it is done what it reached
      log.txt      everything that its process printed
      run/         the run directory
"""

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from fmtda.adaptation.heads import decisive
from fmtda.benchmarking.methods import METHODS, Method
from fmtda.benchmarking.provenance import provenance
from fmtda.benchmarking.settings import adaptation_settings
from fmtda.protocol.settings import AdaptationSettings
from fmtda.protocol.tables import Affects, Scalar, SettingsError, compared
from fmtda.server.run_directory import read_metrics
from fmtda.strategies.composition import settings_of
from fmtda.strategies.registry import algorithm, algorithms

COMPARED = {Affects.PRETRAINING, Affects.RESULT, Affects.NEWCOMERS, Affects.LENGTH}
"""What a cell's settings are compared by. (What lies in a data folder decides too; that is the user's to know.)"""

PLACES = {
    entry.key
    for each in algorithms(AdaptationSettings.kind)
    for entry in settings_of(AdaptationSettings.kind, each.name).fields()
    if entry.meaning.place
}
"""Settings that name a place on this machine; they are shown as DIR."""

NOT_KEPT = {"confusion"}
"""What of a run's summary is too large for the table's file."""

SECONDS_TO_STOP = 10.0
"""What a simulation gets to end by itself; it takes up to three seconds for Ray, and more on a busy machine."""

SECONDS_BETWEEN_TICKS = 0.3
LINES_OF_A_FAILURE = 5


class CellFailed(RuntimeError):
    """Raised where a cell's process ends without a summary; the message has its exit status, `lines` its last words."""

    def __init__(self, status: int, lines: list[str]) -> None:
        super().__init__(f"exit status {status}")
        self.lines = lines


@dataclass
class BenchmarkCell:
    """A cell is one method with one seed.

    Attributes
    ----------
    method : Method
    seed : int
    config : mapping
        The run config that all methods share; paths in it are absolute.
    folder : Path
        Absolute; see the module's docstring.
    options : tuple of str
        Further options of ``fmtda simulate``, which are no run config.
    record : dict or None
        What cell.json holds; None without a readable one.
    """

    method: Method
    seed: int
    config: Mapping[str, Scalar]
    folder: Path
    options: tuple[str, ...] = ()
    record: dict[str, Any] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.record = _read_json(self.folder / "cell.json")

    @cached_property
    def _provenance(self) -> dict[str, Any]:
        """Of the code that runs the cell, asked for as it begins: the files may be edited meanwhile."""
        return provenance()

    @property
    def name(self) -> str:
        """The cell's name for people, such as ``mcd, seed 0``."""
        return f"{self.method.name}, seed {self.seed}"

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.folder / "run"

    @property
    def log(self) -> Path:
        """The file that the cell's process prints to."""
        return self.folder / "log.txt"

    @property
    def run_config(self) -> dict[str, Scalar]:
        """The run config of this cell; what makes the method wins."""
        return {**self.method.own(self.config), **self.method.changes, "seed": self.seed}

    @cached_property
    def settings(self) -> AdaptationSettings:
        """The effective settings.

        Raises
        ------
        SettingsError, DataError
            As `fmtda.benchmarking.settings.adaptation_settings`.
        """
        return adaptation_settings(self.run_config)

    @property
    def result(self) -> dict[str, Any] | None:
        """The result that the cell reached; None before it is done."""
        return self.record["result"] if self.record else None

    @property
    def done(self) -> bool:
        """Whether there is a result, which then isn't computed again."""
        return bool(self.result)

    @property
    def resumable(self) -> bool:
        """Whether a run that was cut short can go on: it left a checkpoint, and Flower's side can continue."""
        return (
            self.record is not None
            and not self.method.breaks_privacy
            and (self.run / "config.toml").exists()
            and any(self.run.glob("checkpoints/round-*"))
        )

    def refuse_other_settings(self) -> None:
        """Refuse to mix with what the folder holds, if that was made with other settings.

        Only keys that are in both are compared: a setting that came to fmtda since then has no say. A cell that was
        made when settings were no tables is left as it is.

        Raises
        ------
        SettingsError
            Naming the cell, the key and both values.
        """
        stored = self.record["settings"] if self.record else {}
        if "data.name" not in stored:
            return
        for key, value in compared(self.settings, COMPARED).items():
            if key in stored and stored[key] != value:
                raise SettingsError(
                    f"{key}={value}: {self.name} in {self.folder} was made with {key}={stored[key]}; "
                    "use the same settings, or another --output"
                )

    def command(self) -> list[str]:
        """Write the command line that runs this cell, or goes on with it."""
        if self.resumable:
            return [sys.executable, "-m", "fmtda", "simulate", "--resume", str(self.run), *self.options]
        return [sys.executable, "-m", *self._program(), "--output", str(self.run), *self._pairs(self.run_config)]

    def shown_command(self) -> str:
        """Write the command line for people, without a path of this machine."""
        shown = {key: "DIR" if key in PLACES else value for key, value in self.run_config.items()}
        program = ["python", "-m"] * self.method.breaks_privacy + self._program()
        return shlex.join([*program, *self._pairs(shown)])

    def execute(self, tick: Callable[[], None]) -> dict[str, Any]:
        """Run the cell to its end and keep its result; `tick` is called a few times a second.

        Returns
        -------
        dict
            What was reached: the run's summary, less what is too large, and the accuracy by round.

        Raises
        ------
        CellFailed
            If its process ends without a summary.
        KeyboardInterrupt
            As it came; the process is ended before.
        """
        summary = self._summary() if self.record else None
        if summary is not None and summary["average_accuracy"] is None:
            shutil.rmtree(self.run)  # to go on with a run that ended would only end it the same way
        elif summary is not None:  # it ended, but nobody was there to write the result down
            result = self._result_of(summary)
            self._write(resumed=True, process_seconds=None, result=result)
            return result
        command, resumed = self.command(), self.resumable
        if not resumed:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write()
        began = time.monotonic()
        status = self._run(command, tick)
        seconds = time.monotonic() - began
        summary = self._summary()
        if status or summary is None or summary["average_accuracy"] is None:
            self._write(failure=f"exit status {status}" if status or summary is None else "a target without a result")
            raise CellFailed(status, self.last_lines(LINES_OF_A_FAILURE))
        result = self._result_of(summary)
        self._write(resumed=resumed, process_seconds=seconds, result=result)
        return result

    def _summary(self) -> dict[str, Any] | None:
        return _read_json(self.run / "summary.json")

    def last_lines(self, count: int) -> list[str]:
        """Read the last lines of the log that say something."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 4000))
                text = file.read().decode(errors="replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()][-count:]

    def _run(self, command: list[str], tick: Callable[[], None]) -> int:
        with self.log.open("a") as log:
            # In a session of its own, Ctrl-C comes to the benchmark alone, which then ends its child in order.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                while True:
                    try:
                        return process.wait(timeout=SECONDS_BETWEEN_TICKS)
                    except subprocess.TimeoutExpired:
                        tick()
            except BaseException:
                _stop(process)
                raise

    def _program(self) -> list[str]:
        if self.method.breaks_privacy:
            return ["fmtda.benchmarking.centralised", self.method.name]
        return ["fmtda", "simulate", *self.options]

    @staticmethod
    def _pairs(config: Mapping[str, Scalar]) -> list[str]:
        texts = {key: str(value).lower() if isinstance(value, bool) else value for key, value in config.items()}
        return [word for key, value in texts.items() for word in ("-c", f"{key}={value}")]

    def _result_of(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in summary.items() if key not in NOT_KEPT}
        inference = algorithm(self.settings.strategy).inference(self.settings)
        by_round = [
            {
                "round": line["round"],
                "phase": line["phase"],
                "accuracy": {domain: decisive(heads, inference) for domain, heads in line["accuracy"].items()},
            }
            for line in read_metrics(self.run)
            if line.get("evaluated", True)
        ]
        return {**kept, "accuracy_by_round": by_round}

    def _write(self, **outcome: Any) -> None:
        """Write cell.json; without an outcome, a cell that has begun."""
        record = {
            "method": self.method.name,
            "seed": self.seed,
            "command": self.shown_command(),
            "settings": compared(self.settings, COMPARED),
            **self._provenance,
            "resumed": False,
            "process_seconds": None,
            "failure": None,
            "result": None,
            **outcome,
        }
        write_whole(self.folder / "cell.json", json.dumps(record, indent=2) + "\n")
        self.record = record


def cells_in(folder: Path, config: Mapping[str, Scalar], options: tuple[str, ...]) -> list[BenchmarkCell]:
    """Find the cells of known methods below a benchmark's folder, done or begun."""
    found = []
    for path in sorted(folder.glob("cells/*/seed-*/cell.json")):
        name, seed = path.parts[-3], path.parts[-2].removeprefix("seed-")
        if name in METHODS and seed.isdecimal():
            found.append(BenchmarkCell(METHODS[name], int(seed), config, path.parent, options))
    return found


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader finds the old one or the new one, never a part."""
    aside = path.with_name(f".{path.name}.writing")
    aside.write_text(text)
    aside.rename(path)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return None


def _stop(process: subprocess.Popen) -> None:
    """End a cell's process and all below it; Ray's agents have sessions of their own and may outlive their parent."""
    below = _below(process)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        below += _below(process)  # what it started meanwhile
        process.kill()
        process.wait()
    for one in below:
        with suppress(psutil.Error):
            one.kill()


def _below(process: subprocess.Popen) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
