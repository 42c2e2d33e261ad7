"""Reads the files of a run directory that anybody may have made, and says what of them can't be used.

metrics.jsonl holds what clients sent, and a run directory may come from somebody else. So every file is compared with
what the server writes: values of another type or beyond their range are left out, each with a line that names it, and
so is a table that lacks what it can't do without. What is left can be shown without another look.

Our choice: how large a file, a number and a name may be.
"""

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from fmtda.benchmarking.tables import COSTS
from fmtda.domains.reading_rights import Unreadable, check_readable, rights_to_read
from fmtda.protocol.printable import printable

LARGEST_FILE = 2**30
"""Bytes of a file at most."""

LONGEST_CAUSE = 200
"""Characters of a line about what was left out, at most."""

Number = Annotated[float, Field(ge=-1e100, le=1e100, allow_inf_nan=False)]
"""So far from the largest float that sums and products of many stay finite."""

Size = Annotated[float, Field(ge=0, le=1e100, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Percent = Annotated[float, Field(ge=0, le=100.001, allow_inf_nan=False)]
Word = Annotated[str, Field(min_length=1, max_length=200)]
ClientName = Annotated[str, Field(min_length=3, max_length=200, pattern=r"(?s)^.+/.+$")]
Told = Annotated[str, BeforeValidator(lambda value: printable(value, 1000))]
"""Text for people, whatever it was."""


ABSENT: Any = None
"""The default of what may be missing: it is no part of what is read, and null in its place is left out."""


class _Part(BaseModel):
    """A table of a file: what is not declared is not taken over, and nothing becomes another type on the way."""

    model_config = ConfigDict(strict=True)


class _Heads(_Part):
    of_all: Percent = Field(alias="global")
    local: Percent = ABSENT
    mean: Percent = ABSENT
    personal: Percent = ABSENT


class _Trained(_Part):
    examples: Count = Field(ABSENT, alias="num-examples")
    typicality: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(ABSENT, alias="source-typicality")
    counts: Annotated[list[Count], Field(max_length=100)] = Field(ABSENT, alias="source-typicality-counts")


class _Client(_Part):
    up: Size
    down: Size
    seconds: Size
    train: _Trained = ABSENT


class _Neighbour(_Part):
    divergence: Number
    weight: Number


class _Newcomer(_Part):
    joined: Count
    nearest: dict[ClientName, _Neighbour] = {}


class _ServerTraining(_Part):
    loss: Number = ABSENT


class _Line(_Part):
    round: Annotated[int, Field(ge=0, le=10**9)]
    phase: Word
    evaluated: bool = True
    accuracy: dict[Word, _Heads] = {}
    source_only: dict[Word, Percent] = {}
    plain_source_only: dict[Word, Percent] = {}
    confusion: dict[Word, list[Count]] = {}
    loss: dict[Word, Number] = {}
    clients: dict[ClientName, _Client] = {}
    newcomers: dict[ClientName, _Newcomer] = {}
    failures: list[Told] = []
    train: _ServerTraining = ABSENT
    server_seconds: Size = ABSENT


class _Histogram(_Part):
    edges: list[Number]
    training: list[Number]
    sampled: list[Number]


class _Quality(_Part):
    frechet_distance: Number = ABSENT
    confident_share: Number = ABSENT
    samples: Count = ABSENT
    class_shares: list[Number] = ABSENT
    histograms: dict[Word, _Histogram] = ABSENT
    wasserstein: dict[Word, Number | None] = ABSENT
    wasserstein_half_to_half: dict[Word, Number | None] = ABSENT


class _Summary(_Part):
    metric: Word = ABSENT
    wall_seconds: Size = ABSENT
    accuracy_by_head: dict[Word, _Heads] = {}
    source_only: dict[Word, Percent] = {}


class _Point(_Part):
    round: Count
    phase: Word
    accuracy: dict[Word, Percent]


class _Result(_Part):
    accuracy: dict[Word, Percent]
    average_accuracy: Percent | None
    plain_source_only: dict[Word, Percent] = {}
    accuracy_by_round: list[_Point] = []
    uplink_bytes_per_client_round: Size | None = None
    downlink_bytes_per_client_round: Size | None = None
    client_seconds_per_round: Size | None = None
    server_seconds_per_round: Size | None = None


class _Cell(_Part):
    method: Word
    seed: int
    command: Told
    settings: dict[Word, str | int | float | bool] = {}
    failure: Told | None = None
    result: _Result | None = None


class _Method(_Part):
    name: Word
    description: Told
    group: Literal["federated", "variant", "reference", "ablation"]
    breaks_privacy: bool


class _Machine(_Part):
    processor: Word
    cores: Count
    memory_gib: Size


class _Benchmark(_Part):
    command: Told
    commit: Told
    data: Word
    metric: Literal["accuracy", "mean-iou"]
    domains: list[Word]
    machine: _Machine
    versions: dict[Word, Word]


def usable(kind: Any, value: Any, where: str, left_out: list[str]) -> Any:
    """Return what of a value is of a kind; the rest is left out, with a line for each part.

    A table that lacks what it needs is left out as a whole, and so is a list with one bad element: its other elements
    would stand in other places.

    Parameters
    ----------
    kind : type
        A type that pydantic knows.
    value
        As json.loads made it; it is changed.
    where : str
        What people call it.
    left_out : list of str
        Gets the lines.

    Returns
    -------
    Any
        Tables as dicts of what they really hold; None where nothing is left.
    """
    adapter = TypeAdapter(kind)
    while True:
        try:
            return adapter.dump_python(adapter.validate_python(value, strict=True), by_alias=True, exclude_unset=True)
        except ValidationError as error:
            found = {_place(value, problem["loc"]): problem["msg"] for problem in error.errors(include_url=False)}
        left_out += [_told(".".join([where, *map(str, place)]), why) for place, why in found.items()]
        if () in found:
            return None
        for *tables, key in found:
            holder = value
            for table in tables:
                holder = holder.get(table, {})  # it may be gone with a table around it
            holder.pop(key, None)


def _place(value: Any, location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Find what has to go for a problem: what stands at its location, or the last table on the way there."""
    place = []
    for word in location:
        if not isinstance(value, dict) or word not in value:
            break
        place.append(word)
        value = value[word]
    return tuple(place)


def _told(where: str, why: str) -> str:
    return printable(f"{where}: {why[:1].lower()}{why[1:]}", LONGEST_CAUSE)


def own_file(folder: Path, name: str) -> Path | None:
    """Return a file of a run directory; None where there is none, it is too large, or a link leads out of the folder.

    A report shows what it finds, and is sent to others.

    Raises
    ------
    Unreadable
        If it is there, and this account may not read it.
    """
    try:
        with rights_to_read(folder / name):
            file = (folder / name).resolve(strict=True)
            facts = file.stat()
            if not file.is_relative_to(folder.resolve()) or not stat.S_ISREG(facts.st_mode):
                return None
            check_readable(file)
    except Unreadable:
        raise
    except (OSError, ValueError, RuntimeError):
        return None
    return file if facts.st_size <= LARGEST_FILE else None


def read_lines(folder: Path, left_out: list[str]) -> list[dict[str, Any]]:
    """Read the lines of metrics.jsonl that can be shown; a last one that a kill left unfinished is not spoken of."""
    file = own_file(folder, "metrics.jsonl")
    if file is None:
        return []
    texts = file.read_text(encoding="utf-8", errors="replace").split("\n")
    lines = []
    for number, text in enumerate(texts, 1):
        where = f"metrics.jsonl, line {number}"
        if (found := _parsed(text, where, left_out if number < len(texts) else [])) is None:
            continue
        if (line := usable(_Line, found, where, left_out)) is not None:
            lines.append(_with_defaults(line))
    return lines


def _with_defaults(line: dict[str, Any]) -> dict[str, Any]:
    """Add the tables that every line has, and every client in it."""
    tables: dict[str, Any] = {"accuracy": {}, "confusion": {}, "loss": {}, "clients": {}, "failures": [], "train": {}}
    whole = {**tables, **line}
    whole["clients"] = {name: {"train": {}, **client} for name, client in whole["clients"].items()}
    whole["newcomers"] = {name: {"nearest": {}, **news} for name, news in line.get("newcomers", {}).items()}
    return whole


def read_summary(folder: Path, left_out: list[str]) -> dict[str, Any]:
    """Read what of summary.json can be shown; empty while the run is under way."""
    found = _read(folder, "summary.json", left_out)
    if not isinstance(found, dict):
        return {}
    quality = found.pop("quality", None)
    summary = usable(_Summary, found, "summary.json", left_out) or {}
    if isinstance(quality, dict):
        summary["quality"] = _quality(quality, "summary.json: quality", left_out)
    return summary


def read_quality(folder: Path, name: str, left_out: list[str]) -> dict[str, Any]:
    """Read a file of samples/ that says how good a round's samples are."""
    found = _read(folder, name, left_out)
    return _quality(found, name, left_out) if isinstance(found, dict) else {}


def _quality(found: dict[str, Any], where: str, left_out: list[str]) -> dict[str, Any]:
    """What is said of samples: known tables, and numbers of any name."""
    mended = found.pop("with_valency_correction", None)
    order = list(found)
    known = {key: found[key] for key in order if key in _Quality.model_fields and found[key] is not None}
    numbers = {k: v for k, v in found.items() if k not in known and type(v) in (int, float)}
    kept = usable(_Quality, known, where, left_out) or {}
    kept |= usable(dict[Word, Number], numbers, where, left_out) or {}
    kept = {key: kept[key] for key in order if key in kept}
    if isinstance(mended, dict):
        numbers = {key: value for key, value in mended.items() if type(value) in (int, float)}
        kept["with_valency_correction"] = usable(dict[Word, Number], numbers, where, left_out) or {}
    return kept


def read_benchmark(folder: Path, name: str, left_out: list[str]) -> dict[str, Any] | None:
    """Read what of a benchmark's results can be shown; None for a file that is no benchmark's."""
    found = _read(folder, name, left_out)
    if not isinstance(found, dict):
        return None
    cells, methods = found.pop("cells", None), found.pop("methods", None)
    results = usable(_Benchmark, found, name, left_out)
    if results is None or not isinstance(cells, list) or not isinstance(methods, list):
        return None
    results["methods"] = _each(_Method, methods, f"{name}: method", left_out)
    results["cells"] = _each(_Cell, cells, f"{name}: cell", left_out)
    for cell in results["cells"]:
        cell.setdefault("settings", {})
        cell.setdefault("failure", None)
        result = cell.setdefault("result", None)
        if result is not None:
            result.setdefault("plain_source_only", {})
            result.setdefault("accuracy_by_round", [])
            for cost in COSTS:
                result.setdefault(cost, None)
    return results


def _each(kind: type[_Part], values: list[Any], where: str, left_out: list[str]) -> list[dict[str, Any]]:
    """Those elements of a list that can be shown."""
    made = [usable(kind, value, f"{where} {number}", left_out) for number, value in enumerate(values, 1)]
    return [each for each in made if each is not None]


def _read(folder: Path, name: str, left_out: list[str]) -> Any:
    file = own_file(folder, name)
    return None if file is None else _parsed(file.read_text(encoding="utf-8", errors="replace"), name, left_out)


def _parsed(text: str, where: str, left_out: list[str]) -> Any:
    """Read JSON; what is none is left out."""
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        left_out.append(_told(where, f"no JSON: {error}"))
        return None


def usable_text(value: Mapping[str, Any], where: str, left_out: list[str]) -> dict[str, str]:
    """Return the texts of a table that is to hold texts alone."""
    return usable(dict[Word, Annotated[str, Field(max_length=200)]], dict(value), where, left_out) or {}
