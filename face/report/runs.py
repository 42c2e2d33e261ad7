"""Reads a run directory for the report: settings, lines of metrics, and what its clients agreed to show."""

import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmtda.adaptation.heads import decisive
from fmtda.face.checked_settings import COMMANDS
from fmtda.face.report.shown_examples import read_examples
from fmtda.face.run_files import own_file, read_lines, read_summary, usable_text
from fmtda.protocol.settings import AdaptationSettings, GenerativeSettings, RunSettings
from fmtda.protocol.tables import AUTO, Scalar, SettingsError
from fmtda.server.illustration import Illustration
from fmtda.server.metrics import mean
from fmtda.server.run_directory import stored_run_config
from fmtda.server.startup import effective_settings
from fmtda.strategies.composition import read_settings
from fmtda.strategies.registry import algorithm

OPTIONS = {
    "data.name": "--data",
    "data.source": "--source",
    "data.targets": "--targets",
    "strategy": "--strategy",
    "preset": "--preset",
    "seed": "--seed",
    "rounds": "--rounds",
    "clients": "--clients",
}
"""Settings for which the command line has an option."""


LATE = "simulation.late"
"""How the keys begin of who joins late in a simulation."""


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
    left_out : list of str
        What its files hold that can't be used, a line each.
    """

    path: Path
    settings: RunSettings
    versions: dict[str, str]
    lines: list[dict[str, Any]]
    summary: dict[str, Any]
    illustration: Illustration | None
    left_out: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "Run":
        """Read a run directory, whoever made it; what of it can't be used is left out.

        Raises
        ------
        SettingsError
            If there is no run, or it has not measured anything yet.
        """
        left_out: list[str] = []
        settings, versions = _settings(path, left_out)
        lines = read_lines(path, left_out)
        if not lines:
            if left_out:
                raise SettingsError(f"{path}: nothing in metrics.jsonl can be used ({left_out[0]})")
            raise SettingsError(f"{path}: this run has measured nothing yet; let it finish a round first")
        cells = len(settings.class_names) ** 2
        for line in lines:
            for domain in [domain for domain, counts in line["confusion"].items() if len(counts) != cells]:
                del line["confusion"][domain]
                left_out.append(f"round {line['round']}: confusion of {domain}: the run has {cells} pairs of classes")
        shown = read_examples(path, settings, left_out) if settings.kind == AdaptationSettings.kind else None
        return cls(path, settings, versions, lines, read_summary(path, left_out), shown, left_out)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def generative(self) -> bool:
        """Whether the run trains a generative model."""
        return self.settings.kind == GenerativeSettings.kind

    @property
    def adaptation_settings(self) -> AdaptationSettings:
        """The settings of a run of domain adaptation."""
        assert isinstance(self.settings, AdaptationSettings)
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
        return {domain: decisive(heads, self.inference) for domain, heads in line.get("accuracy", {}).items()}

    @property
    def inference(self) -> str:
        """The head that counts where a client has no copy of its own."""
        return algorithm(self.settings.strategy).inference(self.adaptation_settings)

    @property
    def places(self) -> set[str]:
        """The settings that name a place on a machine, or how a run was begun."""
        return {entry.key for entry in type(self.settings).fields() if entry.meaning.place}

    @property
    def reached(self) -> dict[str, float]:
        """What the last evaluation found by domain: accuracy or mIoU in percent, or the loss of a generative model."""
        last = self.evaluated[-1:]
        return next((line["loss"] if self.generative else self.accuracy(line) for line in last), {})

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
        config = self.settings.flat()
        named = {option: config[key] for key, option in OPTIONS.items() if key in config}
        words = ["fmtda", COMMANDS[self.settings.kind]]
        if self.generative:
            words.append(self.settings.workload)
            if not algorithm(self.settings.strategy).federated:
                named.pop("--strategy")
                words.append("--local")
        for option, value in named.items():
            words += [option, str(value)]
        if config.get("data.dir"):
            words += ["--data-dir", "DIR"]
        for key, value in self.changed_settings().items():
            shown = str(value).lower() if isinstance(value, bool) else value
            words += ["-c", f"{key}={shown}"]
        return shlex.join(words)

    def changed_settings(self) -> dict[str, Scalar]:
        """Find the settings that are not their default, without those that the command line has options for."""
        config = self.settings.flat()
        asked = {key: config[key] for key in (*OPTIONS, "workload", "data.dir") if key in config}
        late = {key: value for key, value in config.items() if key.startswith(LATE) and config.get("simulation.late")}
        try:
            usual = {**effective_settings({**asked, **late}).flat(), **dict.fromkeys(late)}
        except (OSError, ValueError):  # data that is not on this machine: nothing says what its defaults were
            usual = {**asked, **{key: value for key, value in self.settings.defaults().items() if value != AUTO}}
        skipped = {*OPTIONS, *self.places, "workload"}
        return {key: value for key, value in config.items() if key not in skipped and usual.get(key) != value}


def _settings(path: Path, left_out: list[str]) -> tuple[RunSettings, dict[str, str]]:
    """Read config.toml: the settings, every one of which has to be right, and the versions."""
    try:
        if own_file(path, "config.toml") is None:
            raise SettingsError(f"{path}: no run here (no readable config.toml)")
        stored = stored_run_config(path)
        versions = tomllib.loads((path / "config.toml").read_text(encoding="utf-8")).get("versions", {})
        if odd := [key for key, value in stored.items() if not isinstance(value, str | int | float | bool)]:
            raise SettingsError(f"{path}: {odd[0]} in config.toml is no single value")
        return read_settings(stored), usable_text(versions, "config.toml: versions", left_out)
    except RecursionError:
        raise SettingsError(f"{path}: no run here (config.toml is nested too deeply)") from None
