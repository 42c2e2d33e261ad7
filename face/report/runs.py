"""Reads a run directory for the report: settings, lines of metrics, and what its clients agreed to show."""

import json
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmtda.adaptation.heads import decisive
from fmtda.protocol.generative_settings import GenerativeSettings
from fmtda.protocol.settings import RunSettings, Scalar, Settings, SettingsError
from fmtda.protocol.workloads import read_settings
from fmtda.server.illustration import Illustration, read_illustration
from fmtda.server.metrics import mean
from fmtda.server.run_directory import read_metrics, stored_run_config
from fmtda.server.startup import effective_settings

OF_THE_PLACE = ("output", "resume", "data-dir", "base-dir")
"""Run-config keys that name a place on a machine, or how a run was begun."""

KEPT_IN_COMMAND = ("workload", "data", "source", "targets", "strategy", "preset", "seed", "rounds", "clients")


@dataclass(frozen=True)
class Run:
    """Holds one run, finished or under way.

    Attributes
    ----------
    path : Path
    settings : RunSettings
    versions : dict of str to str
    lines : list of dict
        Of metrics.jsonl, at least one.
    summary : dict
        Empty while the run is under way.
    illustration : Illustration or None
    """

    path: Path
    settings: RunSettings
    versions: dict[str, str]
    lines: list[dict[str, Any]]
    summary: dict[str, Any]
    illustration: Illustration | None

    @classmethod
    def read(cls, path: Path) -> "Run":
        """Read a run directory.

        Raises
        ------
        SettingsError
            If there is no run, or it has not measured anything yet.
        """
        settings = read_settings(stored_run_config(path))
        lines = read_metrics(path)
        if not lines:
            raise SettingsError(f"{path}: this run has measured nothing yet; let it finish a round first")
        versions = tomllib.loads((path / "config.toml").read_text()).get("versions", {})
        try:
            summary = json.loads((path / "summary.json").read_text())
        except (OSError, json.JSONDecodeError):
            summary = {}
        return cls(path, settings, versions, lines, summary, read_illustration(path))

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def generative(self) -> bool:
        """Whether the run trains a generative model."""
        return isinstance(self.settings, GenerativeSettings)

    @property
    def adaptation_settings(self) -> Settings:
        """The settings of a run of domain adaptation."""
        assert isinstance(self.settings, Settings)
        return self.settings

    @property
    def generative_settings(self) -> GenerativeSettings:
        """The settings of a run of a generative model."""
        assert isinstance(self.settings, GenerativeSettings)
        return self.settings

    @property
    def evaluated(self) -> list[dict[str, Any]]:
        """The lines in which clients evaluated."""
        return [line for line in self.lines if line.get("evaluated", True)]

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """The lines of whole rounds, without what was before the first and after the last."""
        return [line for line in self.lines if line["phase"] == "round" and line["round"] > 0]

    def accuracy(self, line: Mapping[str, Any]) -> dict[str, float]:
        """Give the accuracy or mIoU that counts, in percent by domain, of a line of metrics."""
        inference = self.settings.inference if isinstance(self.settings, Settings) else "mean"
        return {domain: decisive(heads, inference) for domain, heads in line.get("accuracy", {}).items()}

    @property
    def reached(self) -> dict[str, float]:
        """What the last evaluation found by domain: accuracy or mIoU in percent, or the loss of a generative model."""
        last = self.evaluated[-1]
        return last["loss"] if self.generative else self.accuracy(last)

    @property
    def average(self) -> float | None:
        """The mean of what was reached by domain; None where clients have no labels."""
        return mean(self.reached.values())

    def cost(self, name: str) -> float | None:
        """Take the mean over clients and evaluated rounds of ``up``, ``down`` or ``seconds``."""
        whole = [line for line in self.rounds if line.get("evaluated", True)]
        return mean(client[name] for line in whole for client in line["clients"].values())

    @property
    def failures(self) -> list[str]:
        """Every reply that could not be used, with its round."""
        return [f"round {line['round']}: {failure}" for line in self.lines for failure in line["failures"]]

    @property
    def command(self) -> str:
        """A command line that starts the same run: what differs from the defaults of its data and preset."""
        config = self.settings.run_config()
        named = {key: config[key] for key in KEPT_IN_COMMAND if key in config}
        words = ["fmtda", self.settings.command]
        if self.generative:
            words.append(str(named.pop("workload")))
            named.pop("preset", None)
            if named["strategy"] == "local":
                named.pop("strategy")
                words.append("--local")
        else:
            named.pop("workload")
        for key, value in named.items():
            words += [f"--{key}", str(value)]
        if config.get("data-dir"):
            words += ["--data-dir", "DIR"]
        for key, value in self.changed_settings().items():
            shown = str(value).lower() if isinstance(value, bool) else value
            words += ["-c", f"{key}={shown}"]
        return shlex.join(words)

    def changed_settings(self) -> dict[str, Scalar]:
        """Find the settings that are not their default, without those that the command line has options for."""
        config = self.settings.run_config()
        asked = {key: config[key] for key in (*KEPT_IN_COMMAND, "data-dir") if key in config}
        late = {key: config[key] for key in ("joining", "join-round") if config.get("joining")}
        try:
            usual = {**effective_settings({**asked, **late}).run_config(), **dict.fromkeys(late)}
        except ValueError:  # data that is not on this machine: nothing says what its defaults were
            usual = {**asked, **{key: value for key, value in self.settings.defaults().items() if value != "auto"}}
        skipped = {*KEPT_IN_COMMAND, *OF_THE_PLACE}
        return {key: value for key, value in config.items() if key not in skipped and usual.get(key) != value}
