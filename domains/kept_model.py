"""Keeps, on a client's own machine, what its predictions need beside its own part: the global model, and the settings.

A client of a deployment writes it when it evaluates, and when it personalises, so that `fmtda predict` and `fmtda
export` work in its folder without a copy from the server::

    global.safetensors    the global model's arrays, as the last such message brought them; one copy, the newest
    kept.json             whose folder it is, the round, the run's settings, and a digest of every .safetensors file

The list of digests is written last, and again when training has changed the client's own part. So files that don't
belong together are told from those that do: after a kill half-way, or where one was brought from elsewhere.

In a simulation nothing is written: the run directory has it all.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from fmtda.domains.client import Client
from fmtda.domains.reading_rights import matching, rights_to_read
from fmtda.protocol.printable import printable
from fmtda.protocol.settings import RunSettings
from fmtda.protocol.tables import Nested, SettingsError, nested

MODEL = "global.safetensors"
ABOUT = "kept.json"

FORMAT = 1
"""Of `ABOUT`; another one is refused."""

LONGEST_ABOUT = 2**20
"""Bytes of `ABOUT` that are read at most; ours has about 2,500."""


@dataclass(frozen=True)
class KeptModel:
    """Holds what was kept.

    Attributes
    ----------
    client : str
        Its name.
    round : int
        After whose training the model is.
    settings : str
        The run's, as the JSON text of tables in tables; checked by nobody yet.
    arrays : dict of str to Tensor
        The global model's; checked by nobody yet.
    """

    client: str
    round: int
    settings: str
    arrays: dict[str, torch.Tensor]


def keep_model(client: Client, arrays: Mapping[str, torch.Tensor]) -> None:
    """Write the global model that a client has just predicted with, where it differs from the one that is there.

    Warns
    -----
    UserWarning
        If the system refuses, as on a full disk: the client has done its part of the run all the same.
    """
    if client.simulated:
        return
    with _warning(client):
        client.folder.mkdir(parents=True, exist_ok=True)
        data = save({name: tensor.contiguous() for name, tensor in arrays.items()})
        file = client.folder / MODEL
        if not file.is_file() or _digest(file) != hashlib.sha256(data).hexdigest():
            _write(file, data)
        about = {
            "format": FORMAT,
            "fmtda": version("fmtda"),
            "client": client.name,
            "round": client.round,
            "settings": portable(client.settings),
            "files": _digests(client.folder),
        }
        _write(client.folder / ABOUT, json.dumps(about, indent=1).encode())


@contextmanager
def keeping_whole(client: Client) -> Iterator[None]:
    """Let what a message changes of the client's own part in here belong to the model that is kept, if all did before.

    Training does so: its upload is newer than the model until the client evaluates.
    """
    about = None if client.simulated else _whole(client.folder)
    yield
    if about is not None:
        with _warning(client):
            if about["files"] != (digests := _digests(client.folder)):
                _write(client.folder / ABOUT, json.dumps({**about, "files": digests}, indent=1).encode())


@contextmanager
def _warning(client: Client) -> Iterator[None]:
    try:
        yield
    except (OSError, SettingsError) as error:
        warnings.warn(
            f"{client.name} keeps no model in {client.folder} to predict with on this machine: {error}", stacklevel=4
        )


def is_kept(folder: Path) -> bool:
    """Say whether a folder is a client's that keeps a model."""
    with rights_to_read(folder):
        return (folder / ABOUT).is_file()


def read_kept(folder: Path) -> KeptModel:
    """Read what a client keeps in its folder.

    Raises
    ------
    SettingsError
        If it isn't whole, or by another version of this format; in one line.
    """
    about = _read_about(folder)
    if about["files"] != _digests(folder):
        raise SettingsError(
            f"{folder}: what {about['client']} keeps here is not whole: it is at work just now, was stopped while it "
            "wrote, or a file was changed; try again after its next evaluation, or name the run directory of its "
            f"server with --local {folder}"
        )
    try:
        arrays = load((folder / MODEL).read_bytes())
    except (OSError, SafetensorError) as error:
        raise SettingsError(f"{folder / MODEL}: no model that can be read ({printable(error)})") from None
    return KeptModel(about["client"], about["round"], json.dumps(about["settings"]), arrays)


def portable(settings: RunSettings) -> Nested:
    """Return settings as tables without those that name a place on a machine."""
    places = {entry.key for entry in type(settings).fields() if entry.meaning.place}
    return nested({key: value for key, value in settings.flat().items() if key not in places})


def _whole(folder: Path) -> dict[str, Any] | None:
    """What is known of a folder in which all files belong together; None of any other."""
    try:
        about = _read_about(folder)
        return about if about["files"] == _digests(folder) else None
    except (OSError, SettingsError):
        return None


def _read_about(folder: Path) -> dict[str, Any]:
    file = folder / ABOUT
    try:
        with rights_to_read(file), file.open("rb") as opened:
            text = opened.read(LONGEST_ABOUT + 1)
    except OSError as error:
        raise SettingsError(f"{folder}: no client's folder with a model ({error.strerror}: {ABOUT})") from None
    try:
        if len(text) > LONGEST_ABOUT:
            raise ValueError
        about: dict[str, Any] = json.loads(text)
        its_format, made_with = int(about["format"]), printable(about["fmtda"], 40)
        if its_format == FORMAT and not (
            isinstance(about["round"], int) and isinstance(about["settings"], dict) and about["files"][MODEL]
        ):
            raise ValueError
        if about["client"] != printable(about["client"]):
            raise ValueError
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise SettingsError(f"{file}: not what a client of fmtda writes; let the client evaluate once more") from None
    if its_format != FORMAT:
        raise SettingsError(
            f"{file}: written by fmtda {made_with} in format {its_format}, and this is {version('fmtda')} with format "
            f"{FORMAT}; use that version, or let the client evaluate once more"
        )
    return about


def _digests(folder: Path) -> dict[str, str]:
    return {file.name: _digest(file) for file in matching(folder, "*.safetensors")}


def _digest(file: Path) -> str:
    with rights_to_read(file), file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _write(file: Path, data: bytes) -> None:
    """Whole or not at all; what a kill leaves beside it, the next writing takes the place of."""
    aside = file.with_name(f".{file.name}.writing")
    try:
        aside.write_bytes(data)
        os.replace(aside, file)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
