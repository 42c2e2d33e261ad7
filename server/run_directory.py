"""Writes and reads the run directory: settings, one line of metrics a round, the summary, what resuming needs.

::

    flower.log       what Flower itself says, tracebacks of failing clients included (simulation)
    config.toml      the full effective settings, and the versions they ran with
    metrics.jsonl    one line a round, round 0 being before the first
    pretrained.safetensors    G and F_g before the first round
    illustration.safetensors  features and pictures of clients that agreed to show them (server/illustration.py)
    samples/         what a generative model drew
    summary.json     written at the end
    checkpoints/     the global model after the last rounds, and what else the server needs to go on
    tensorboard/     the same metrics as curves
    uploads/         what clients last uploaded beside a whole model, and what the server kept to go with it
    .lock            held by the one process that works here; .owner.json tells people which it is
    trackers.json    the run's ids in MLflow and Weights & Biases, where these are used
    clients/         what stays with each simulated client
"""

import json
import os
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli_w
import torch
from flwr.app import Message
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fmtda.domains.reading_rights import Unreadable, check_readable, matching, rights_to_read
from fmtda.protocol.client_names import folder_of
from fmtda.protocol.records import from_record
from fmtda.protocol.settings import RunSettings
from fmtda.protocol.tables import Affects, SettingsError, compared, flattened
from fmtda.server.run_lock import LOCK, OWNER, owned
from fmtda.server.trackers import Trackers

MAKE_ROOM = "make room or give the folder back its rights"


class WriteError(OSError):
    """Raised where a part of a run can't be written; the message names it, its folder, the cause and what to do."""


@contextmanager
def writing(what: str, where: Path) -> Iterator[None]:
    """Make a `WriteError` of whatever the system refuses in here.

    Parameters
    ----------
    what
        What is written, as in "the checkpoint of round 3".
    where
        The folder or file.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise WriteError(f"can't write {what} to {where}: {error}; {MAKE_ROOM}") from error


FLOWER_LOG = "flower.log"
"""Flower's own log of a simulation; it may be there before the run is."""

PRETRAINED = "pretrained.safetensors"

BEFORE_THE_RUN = {FLOWER_LOG, LOCK, OWNER, ".config.toml.writing"}
"""What a folder may hold and still be new: the log, the lock, and what a kill in the very first moment left."""

UPLOADED = "uploaded.safetensors"
"""In a folder of the client's name below `uploads`, laid out as the client keeps it: a group of tensors a record."""

UNCHANGED = {Affects.PRETRAINING, Affects.RESULT, Affects.NEWCOMERS}
"""What a resumed run may not be given anew; it may be longer."""


class RunDirectory:
    """Keeps the files of one run below `path`.

    Attributes
    ----------
    left_by : str
        Which process worked there before and was killed, for people; empty where none was.
    """

    def __init__(self, path: Path, settings: RunSettings | None = None) -> None:
        self.path = path
        self._settings = settings
        self._trackers: Trackers | None = None
        self._first_round = 0
        self.left_by = ""
        self.checkpoints = path / "checkpoints"
        self.tensorboard = path / "tensorboard"
        self.samples = path / "samples"
        self.uploads = path / "uploads"
        self._metrics = path / "metrics.jsonl"
        self._since = time.perf_counter()

    @classmethod
    @contextmanager
    def at_work(cls, settings: RunSettings) -> Iterator["RunDirectory"]:
        """Begin the run in ``settings.output`` or continue it, as the one process that works there meanwhile.

        Raises
        ------
        SettingsError
            As `create` and `open`, and if another process works there.
        """
        path = Path(settings.output)
        if settings.resume:  # looked at before anything is written, the lock too, and once more when it is ours
            refuse_other_settings(settings)
        else:
            refuse_unusable_output(path)
            make_folder(path)
        with owned(path) as killed:
            run = cls.open(settings) if settings.resume else cls.create(settings)
            run.left_by = killed
            yield run

    @classmethod
    def create(cls, settings: RunSettings) -> "RunDirectory":
        """Begin a new run in ``settings.output``.

        Raises
        ------
        SettingsError
            If the folder holds something already or can't be written to.
        """
        path = Path(settings.output)
        refuse_unusable_output(path)
        make_folder(path)
        run = cls(path, settings)
        try:
            run._write("config.toml", config_text(settings))
        except WriteError as error:
            raise SettingsError(f"output={path}: {error}") from None
        return run

    @classmethod
    def open(cls, settings: RunSettings) -> "RunDirectory":
        """Open the run in ``settings.output`` to continue it.

        Raises
        ------
        SettingsError
            If there is no run, or it was made with other settings; the message names them.
        """
        refuse_other_settings(settings)
        run = cls(Path(settings.output), settings)
        run._write("config.toml", config_text(settings))
        return run

    def keep_pretrained(self, state: Mapping[str, torch.Tensor]) -> None:
        """Write the network as it was before the first round; raises `WriteError` where the system refuses."""
        aside = self.path / f".{PRETRAINED}.writing"
        with writing("the pre-trained network", self.path):
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, aside)
            aside.rename(self.path / PRETRAINED)

    def pretrained(self) -> dict[str, torch.Tensor] | None:
        """Read the network as it was before the first round; None in a run of an earlier version, which kept none.

        Raises
        ------
        Unreadable
            If it is there, and this account may not read it.
        """
        file = self.path / PRETRAINED
        try:
            check_readable(file)
            return load_file(file)
        except (OSError, SafetensorError):
            return None

    def begin_at(self, first_round: int) -> None:
        """Say which round is the first that is written; what an interrupted run left from there on is taken away."""
        self._first_round = first_round
        self.cut_back(first_round - 1)

    @property
    def trackers(self) -> Trackers:
        """The place of the run's curves, begun with the first line."""
        if self._trackers is None:
            assert self._settings is not None, "a directory that was only opened to be read writes no curves"
            self._trackers = Trackers(self._settings, self.path, self._first_round)
        return self._trackers

    def write_down(self, line: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl and to the curves.

        Raises
        ------
        WriteError
            If the system refuses; earlier lines and checkpoints stay as they are.
        """
        with writing(f"the metrics of round {line['round']}", self.path):
            self.append_metrics(line)
            self.trackers.log(line)

    def close(self) -> None:
        """End the curves."""
        if self._trackers is not None:
            self._trackers.close()

    def keep_uploads(self, replies: Mapping[str, Message]) -> None:
        """Write the arrays of every reply, by client name; what others sent in earlier rounds stays.

        The server alone can then predict for a domain whose client keeps the rest to itself, tell which domain pictures
        look like, and a new domain can be adapted to after the run.

        Raises
        ------
        ValueError
            If a name is none, or its folder would not lie below this one.
        WriteError
            Where the system refuses.
        """
        for name, reply in replies.items():
            tensors = {
                f"{record}.{array}": tensor
                for record, arrays in reply.content.array_records.items()
                for array, tensor in from_record(arrays).items()
            }
            self._write_tensors("the uploads", folder_of(name, self.uploads) / UPLOADED, tensors)

    def keep_closing(self, kept: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Write what the server keeps to go with the uploads, by file name; raises `WriteError` as `keep_uploads`."""
        for name, tensors in kept.items():
            self._write_tensors("the uploads", self.uploads / f"{name}.safetensors", tensors)

    def closing(self) -> dict[str, dict[str, torch.Tensor]]:
        """Read what `keep_closing` wrote; empty where there is nothing.

        Raises
        ------
        Unreadable
            If something is there that this account may not read.
        """
        found = {}
        for file in matching(self.uploads, "*.safetensors"):
            with suppress(FileNotFoundError, SafetensorError):
                check_readable(file)
                found[file.stem] = load_file(file)
        return found

    def senders(self) -> list[str]:
        """List the clients whose uploads are kept, sorted by name.

        Raises
        ------
        Unreadable
            If a folder is there that this account may not read.
        """
        files = matching(self.uploads, f"*/*/{UPLOADED}")
        return sorted(file.parent.relative_to(self.uploads).as_posix() for file in files)

    def _write_tensors(self, what: str, file: Path, tensors: Mapping[str, torch.Tensor]) -> None:
        aside = file.with_name(f".{file.name}.{os.getpid()}")
        with writing(what, file):
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, aside)
            aside.rename(file)

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl, with the seconds since the one before or since the run was opened."""
        now = time.perf_counter()
        with self._metrics.open("a") as file:
            file.write(json.dumps({**line, "wall_seconds": now - self._since}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._since = now

    def wall_seconds(self) -> float:
        """Add up how long the run has taken, in all sittings; what a kill has undone does not count."""
        return sum(line.get("wall_seconds", 0.0) for line in self.metrics()) + time.perf_counter() - self._since

    def metrics(self) -> list[dict[str, Any]]:
        """Read all lines of metrics.jsonl so far."""
        return read_metrics(self.path)

    def cut_back(self, server_round: int) -> None:
        """Keep only the metrics of whole rounds up to `server_round`, so that a resumed run equals an unbroken one.

        The summary of a run that had ended goes too: until the next end it would tell of another model.
        """
        kept = [line for line in self.metrics() if line["round"] <= server_round and line["phase"] == "round"]
        self._write("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))
        (self.path / "summary.json").unlink(missing_ok=True)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write summary.json."""
        self._write("summary.json", json.dumps(summary, indent=2) + "\n")

    def _write(self, name: str, text: str) -> None:
        aside = self.path / f".{name}.writing"
        with writing(name, self.path):
            aside.write_text(text)
            aside.rename(self.path / name)


def make_folder(path: Path) -> None:
    """Create the run directory.

    Raises
    ------
    SettingsError
        If the system refuses.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"output={path}: the folder can't be made ({error.strerror}); name another") from None


def refuse_unusable_output(path: Path) -> None:
    """Refuse a folder for a new run that holds something or can't be written to; creates nothing.

    Raises
    ------
    SettingsError
        Saying which, and what to do.
    """
    if path.exists() and not path.is_dir():
        raise SettingsError(f"output={path}: this is a file; name a folder")
    if path.is_dir() and any(entry.name not in BEFORE_THE_RUN for entry in path.iterdir()):
        hint = f"continue that run with --resume {path}" if (path / "config.toml").exists() else "name a new folder"
        raise SettingsError(f"output={path}: the folder is not empty; {hint}")
    parent = next(folder for folder in (path, *path.parents) if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise SettingsError(f"output={path}: {parent} can't be written to; name a folder that can")


def refuse_other_settings(settings: RunSettings) -> None:
    """Refuse to continue the run in ``settings.output`` with settings that would change its results.

    Raises
    ------
    SettingsError
        Naming the key, both values, and what to do.
    """
    stored = stored_run_config(Path(settings.output))
    for key, value in compared(settings, UNCHANGED).items():
        if stored.get(key) != value:
            raise SettingsError(
                f"{key}={value}: the run in {settings.output} has {key}={stored.get(key)}; "
                "resume it with its own settings, or start a new run in another folder"
            )
    if settings.rounds != stored["rounds"] and not settings.rounds_may_grow:
        raise SettingsError(
            f"rounds={settings.rounds}: the run in {settings.output} has {stored['rounds']}, and what a round does "
            "depends on it; leave rounds out, or start a new run in another folder"
        )
    if settings.rounds < stored["rounds"]:
        raise SettingsError(
            f"rounds={settings.rounds}: the run in {settings.output} has {stored['rounds']}; only more can follow"
        )


def stored_run_config(path: Path) -> dict[str, Any]:
    """Read the settings of the run in a folder, by dotted keys.

    Raises
    ------
    SettingsError
        If the folder holds no run, one that this account may not read, or one of a version of fmtda whose settings
        were no tables.
    """
    file = path / "config.toml"
    try:
        with rights_to_read(file):
            config = tomllib.loads(file.read_text(encoding="utf-8"))
        settings, versions = dict(config["settings"]), dict(config.get("versions", {}))
    except Unreadable:
        raise
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        raise SettingsError(f"{path}: no run here (no readable config.toml)") from None
    if not isinstance(settings.get("data"), dict):
        made_with = versions.get("fmtda", "an earlier version")
        raise SettingsError(f"{path}: this run was made by fmtda {made_with} and wants that version; start a new run")
    if missing := {"workload", "strategy", "rounds", "output"} - settings.keys():
        raise SettingsError(f"{path}: config.toml lacks {', '.join(sorted(missing))}; start a new run")
    return dict(flattened(settings))


def config_text(settings: RunSettings) -> str:
    """Make the text of config.toml; whoever copies a run never copies that it was resumed."""
    tables = {**settings.nested(), "resume": False}
    return tomli_w.dumps({"settings": tables, "versions": versions()})


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a run's metrics.jsonl; a last line that a kill left unfinished is left out.

    Raises
    ------
    Unreadable
        If it is there, and this account may not read it.
    """
    lines, file = [], path / "metrics.jsonl"
    try:
        with rights_to_read(file):
            for text in file.read_text().splitlines():
                lines.append(json.loads(text))
    except (FileNotFoundError, json.JSONDecodeError):
        return lines
    return lines


def versions() -> dict[str, str]:
    """List the versions that a result depends on."""
    return {name: version(name) for name in ("fmtda", "flwr", "torch", "torchvision", "scikit-learn", "numpy")}
