"""Sends a run's metrics to curves and pictures: TensorBoard always, MLflow and Weights & Biases where asked for.

All of them get the same names and the same steps: the step is the round. Where MLflow and Weights & Biases keep what
they get is theirs to configure, by MLFLOW_TRACKING_URI, WANDB_API_KEY, WANDB_MODE and the rest of their variables;
without these it is the run directory. A resumed run goes on in the same MLflow and Weights & Biases run, whose ids
``trackers.json`` keeps.
"""

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from fmtda.protocol.settings import RunSettings, SettingsError

PROJECT = "fmtda"
"""MLflow's experiment and the project of Weights & Biases."""

INSTALL = "pip install 'fmtda[trackers]'"

LONGEST_NAME = 200
"""Characters of a curve's name at most; MLflow takes 250, and adds to a picture's."""


class Tracker(Protocol):
    """Takes metrics to one place."""

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Write numbers by their names."""

    def show(self, name: str, picture: Tensor, step: int) -> None:
        """Write a picture: uint8 (3, H, W)."""

    def close(self) -> None:
        """End what was begun: nothing more will come."""


class Trackers:
    """Joins all trackers of a run.

    Parameters
    ----------
    settings : RunSettings
        Whose `trackers` names those beside TensorBoard.
    folder : Path
        The run directory.
    first_round : int
        The first step that is written; what an interrupted run left from there on is hidden or written over.
    """

    def __init__(self, settings: RunSettings, folder: Path, first_round: int) -> None:
        names = dict.fromkeys(["tensorboard", *settings.tracker_names])
        self._trackers: list[Tracker] = [TRACKERS[name](settings, folder, first_round) for name in names]

    def log(self, line: dict[str, Any]) -> None:
        """Write one line of metrics.jsonl."""
        self.write(dict(scalars(line)), line["round"])

    def write(self, named: Mapping[str, float], server_round: int) -> None:
        """Write numbers by their names."""
        allowed = {allowed_name(name): value for name, value in named.items()}
        for tracker in self._trackers:
            tracker.write(allowed, server_round)

    def show(self, name: str, picture: Tensor, server_round: int) -> None:
        """Write a picture: uint8 (3, H, W)."""
        for tracker in self._trackers:
            tracker.show(allowed_name(name), picture, server_round)

    def close(self) -> None:
        """End what each of them has begun."""
        for tracker in self._trackers:
            tracker.close()


class TensorBoard:
    """Writes event files into the run directory."""

    def __init__(self, settings: RunSettings, folder: Path, first_round: int) -> None:
        # Imported here: it takes a second, which only the server of a run should pay.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(folder / "tensorboard", purge_step=first_round)

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def show(self, name: str, picture: Tensor, step: int) -> None:
        self._writer.add_image(name, picture, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class MLflow:
    """Writes a run of the experiment `fmtda`, into the run's mlflow.db unless MLFLOW_TRACKING_URI says otherwise."""

    def __init__(self, settings: RunSettings, folder: Path, first_round: int) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import RunStatus

        own = None if os.environ.get("MLFLOW_TRACKING_URI") else f"sqlite:///{folder}/mlflow.db"
        self._client = MlflowClient(tracking_uri=own)
        known = _known_id(folder, "mlflow")
        if known is not None:
            self._run = known
            self._client.update_run(known, status=RunStatus.to_string(RunStatus.RUNNING))
            return
        experiment = self._client.get_experiment_by_name(PROJECT)
        place = (folder / "mlflow").as_uri() if own else None
        number = experiment.experiment_id if experiment else self._client.create_experiment(PROJECT, place)
        self._run = self._client.create_run(number, run_name=folder.name).info.run_id
        for key, value in settings.flat().items():
            self._client.log_param(self._run, key, value)
        _keep_id(folder, "mlflow", self._run)

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        for name, value in scalars.items():
            self._client.log_metric(self._run, name, value, step=step)

    def show(self, name: str, picture: Tensor, step: int) -> None:
        self._client.log_image(self._run, picture.permute(1, 2, 0).numpy(), key=name, step=step, synchronous=True)

    def close(self) -> None:
        self._client.set_terminated(self._run)


class WeightsAndBiases:
    """Writes a run of the project `fmtda`; offline, in the run directory's wandb/, where nobody is logged in."""

    def __init__(self, settings: RunSettings, folder: Path, first_round: int) -> None:
        import wandb

        self._wandb = wandb
        name = _known_id(folder, "wandb") or secrets.token_hex(4)
        _keep_id(folder, "wandb", name)
        asked: Any = os.environ.get("WANDB_MODE")
        self._run = wandb.init(
            project=PROJECT,
            name=folder.name,
            id=name,
            resume="allow",
            dir=str(folder),
            mode=asked or ("online" if wandb.api.api_key else "offline"),
            config=settings.flat(),
            settings=wandb.Settings(console="off", silent=True),
        )

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        self._run.log(dict(scalars), step=step)

    def show(self, name: str, picture: Tensor, step: int) -> None:
        self._run.log({name: self._wandb.Image(picture.permute(1, 2, 0).numpy())}, step=step)

    def close(self) -> None:
        self._run.finish()


TRACKERS: dict[str, Callable[[RunSettings, Path, int], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}
"""By their names in the run config."""


def check_installed(settings: RunSettings) -> None:
    """Refuse trackers that are not installed, without importing them.

    Raises
    ------
    SettingsError
        Naming them and the extra that brings them.
    """
    for name in settings.tracker_names:
        if name != "tensorboard" and find_spec(name) is None:
            raise SettingsError(
                f"trackers={settings.trackers}: {name} is not installed here; install the extra: {INSTALL}, "
                "or leave it out"
            )


def scalars(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Name the numbers of a line as in every tracker: ``accuracy/svhn/mean``, ``server/discrepancy``."""
    for domain, by_head in line.get("accuracy", {}).items():
        for head, value in by_head.items():
            yield f"accuracy/{domain}/{head}", value
    for domain, by_name in line.get("label_free", {}).items():
        for name, value in by_name.items():
            yield f"{name}/{domain}", value
    for domain, value in line.get("loss", {}).items():
        yield f"loss/{domain}", value
    for name, value in line.get("train", {}).items():
        if isinstance(value, int | float):
            yield f"server/{name}", value
    clients = line["clients"].values()
    for name in ("up", "down", "seconds"):
        if clients:
            yield f"clients/mean-{name}", sum(client[name] for client in clients) / len(clients)
    yield "clients/failures", len(line["failures"])


def allowed_name(name: str) -> str:
    """Make a name that every tracker takes, MLflow being the strictest: letters, digits, ``_``, ``-``, ``.``, ``/``.

    It is a relative path in its shortest form, of at most `LONGEST_NAME` characters.
    """
    words = re.sub(r"[^\w\-./]", "_", name, flags=re.ASCII).split("/")
    whole = "/".join("_" if word in ("", ".", "..") else word for word in words)
    return whole if len(whole) <= LONGEST_NAME else whole[:LONGEST_NAME].rstrip("/.")


def _known_id(folder: Path, tracker: str) -> str | None:
    """The id that the run had there before it was interrupted."""
    try:
        return json.loads((folder / "trackers.json").read_text()).get(tracker)
    except (OSError, json.JSONDecodeError):
        return None


def _keep_id(folder: Path, tracker: str, name: str) -> None:
    file = folder / "trackers.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    aside = file.with_name(".trackers.json.writing")
    aside.write_text(json.dumps({**known, tracker: name}))
    aside.rename(file)
