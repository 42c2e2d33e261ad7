"""Makes tables of settings, frozen pydantic models that nest, whose fields are known by dotted keys.

``dualadapt.components`` is the field `components` of the table `dualadapt`, in the run config of Flower, behind ``-c``,
and in a TOML file, where ``[dualadapt]`` may stand above it. A field says by `setting` what `auto` means for it and
what it has a say in; whoever compares, resumes or hides settings asks the field.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

AUTO = "auto"
Scalar = str | int | float | bool
Nested = dict[str, Any]
"""Tables in tables, scalars at the ends."""


class SettingsError(ValueError):
    """Raised for a setting that can't be used; the message names the key, the value and what is allowed."""


class Affects(StrEnum):
    """Says what a setting has a say in."""

    PRETRAINING = "pretraining"
    """The pre-trained network, and with it the result."""
    RESULT = "result"
    LENGTH = "length"
    """How long the run is: a resumed one may be longer."""
    NEWCOMERS = "newcomers"
    """Clients that join a run under way, and through them the others; `fmtda join` may bring another value along."""
    NOTHING = "nothing"
    """Where files lie, how long to wait, what is shown: no result differs by it."""


@dataclass(frozen=True)
class Meaning:
    """Holds what a field says of itself beside its type, range and default.

    Attributes
    ----------
    affects
        What it has a say in.
    place
        Whether it names a place on this machine, which is nobody else's business.
    by_data
        Which hint of the data (`domains.family.HINTS`) `auto` takes; empty for none.
    by_preset
        What `auto` is by preset where the data give no hint.
    server_only
        Whether it is no business of clients on machines of their own: messages carry its default in its place.
    stand_in
        What they carry of one without a default.
    """

    affects: Affects = Affects.RESULT
    place: bool = False
    by_data: str = ""
    by_preset: Mapping[str, Scalar] | None = None
    server_only: bool = False
    stand_in: Scalar | None = None

    @property
    def disclosed(self) -> bool:
        """Whether messages tell clients on machines of their own what it is."""
        return not (self.server_only or self.place or self.affects is Affects.NOTHING)


def setting(
    default: Any = ...,
    *,
    description: str,
    affects: Affects = Affects.RESULT,
    place: bool = False,
    by_data: str = "",
    by_preset: Mapping[str, Scalar] | None = None,
    server_only: bool = False,
    stand_in: Scalar | None = None,
    **constraints: Any,
) -> Any:
    """Declare a field of a table.

    Parameters
    ----------
    default
        Its value where nobody says; without one it is ``auto``, which data, preset or workload decide.
    description
        What it means, for people, in one line.
    affects, place, by_data, by_preset, server_only, stand_in
        See `Meaning`.
    constraints
        Of pydantic's Field: ``ge=1``.

    Raises
    ------
    TypeError
        If nothing can stand in for what clients are not told.
    """
    if server_only and default is ... and stand_in is None:
        raise TypeError(f"{description}: server_only without a default wants a stand_in")
    extra: Any = {"meaning": Meaning(affects, place, by_data, by_preset, server_only, stand_in)}
    return Field(default, description=description, json_schema_extra=extra, **constraints)


def meaning_of(field: FieldInfo) -> Meaning:
    """Return what a field of a table says of itself."""
    extra = field.json_schema_extra
    return extra["meaning"] if isinstance(extra, dict) and "meaning" in extra else Meaning()  # type: ignore[return-value]


def kebab(name: str) -> str:
    """Make the key of a field's name: ``server-steps`` of ``server_steps``."""
    return name.replace("_", "-")


class Table(BaseModel):
    """Holds settings, frozen. Unknown keys are refused; infinite and undefined numbers too."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=kebab, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation in (int, float):
            raise ValueError("a number, not true or false")
        return value

    @classmethod
    def fields(cls, prefix: str = "") -> Iterator["Entry"]:
        """List every field of this table and of the tables in it, by its dotted key."""
        for name, field in cls.model_fields.items():
            key = f"{prefix}{field.alias}"
            if (inner := table_of(field)) is not None:
                yield from inner.fields(f"{key}.")
            elif not field.exclude:
                yield Entry(key, name, field, cls)

    @classmethod
    def _with_tables(cls, given: Nested) -> Nested:
        """What was given, with an empty table for each of which nothing was."""
        tables = {str(field.alias): table_of(field) for field in cls.model_fields.values() if not field.exclude}
        return {**given, **{key: table._with_tables(given.get(key, {})) for key, table in tables.items() if table}}

    @classmethod
    def by_key(cls) -> dict[str, FieldInfo]:
        """Return the fields by their dotted key."""
        return {entry.key: entry.field for entry in cls.fields()}

    @classmethod
    def defaults(cls) -> dict[str, Scalar]:
        """Return every dotted key with its default, ``auto`` where data, preset or workload decide."""
        return {key: AUTO if field.is_required() else field.default for key, field in cls.by_key().items()}

    def nested(self) -> Nested:
        """Return the table as tables of scalars."""
        return self.model_dump(by_alias=True)

    def flat(self) -> dict[str, Scalar]:
        """Return the table as scalars by their dotted keys."""
        return dict(flattened(self.nested()))

    @classmethod
    def validated(cls, flat: Mapping[str, Scalar]) -> Self:
        """Build the table out of scalars by their dotted keys; values as TOML gives them, or strings.

        Raises
        ------
        SettingsError
            For an unknown key, a missing one, a wrong type or a value out of range; one line per problem.
        """
        known = cls.by_key()
        unknown = [key for key in flat if key not in known]
        problems = [f"{key}: no such key; {nearest(key, known)}" for key in unknown]
        try:
            table = cls.model_validate(cls._with_tables(nested({k: v for k, v in flat.items() if k in known})))
        except ValidationError as error:
            problems += [_explained(problem, known) for problem in error.errors()]
        if problems:
            raise SettingsError("\n".join(problems)) from None
        return table


def table_of(field: FieldInfo) -> type[Table] | None:
    """Return the table that a field holds; None for one that holds a value."""
    inner = field.annotation
    return inner if isinstance(inner, type) and issubclass(inner, Table) else None


class Switchable(Table):
    """Holds settings that have a say only where the field `on` is true."""

    on: bool = setting(description="whether it is done")


class Entry(NamedTuple):
    """Joins a field, its dotted key, its name, and the table that it stands in."""

    key: str
    name: str
    field: FieldInfo
    table: type[Table]

    @property
    def meaning(self) -> Meaning:
        """The field's own word on itself."""
        return meaning_of(self.field)


def key_and_value(text: str) -> tuple[str, str]:
    """Take a setting that was given as KEY=VALUE apart.

    Raises
    ------
    SettingsError
        Without a key, or without an equals sign.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise SettingsError(f"-c {text}: expected KEY=VALUE, as in -c rounds=5")
    return key.strip(), value.strip()


def flattened(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """List the scalars of nested tables by their dotted keys."""
    for key, value in tables.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def nested(flat: Mapping[str, Any]) -> Nested:
    """Make tables out of scalars by their dotted keys.

    Raises
    ------
    SettingsError
        If a key is both a table and a value.
    """
    tables: Nested = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        table = tables
        for word in path:
            table = table.setdefault(word, {})
            if not isinstance(table, dict):
                raise SettingsError(f"{key}: {word} is a value already, it can't be a table too")
        if isinstance(table.get(last), dict):
            raise SettingsError(
                f"{key}={value}: this is a table; its keys are {', '.join(f'{key}.{k}' for k in table[last])}"
            )
        table[last] = value
    return tables


def resolved(
    table: type[Table],
    given: Mapping[str, Scalar],
    *,
    hints: Mapping[str, Scalar],
    preset: str,
    usual: Mapping[str, Scalar],
) -> dict[str, Scalar]:
    """Add to what was given a value for every ``auto`` that data, preset or workload decide.

    Parameters
    ----------
    table
        Whose fields.
    given
        Scalars by dotted keys; ``auto`` is no value where a field has no default.
    hints
        What the data say: they win over the preset, as data that know no scenery have none.
    preset
        A key of the fields' `by_preset`.
    usual
        What the workload takes for a dotted key where data and preset say nothing.
    """
    values = dict(given)
    for entry in table.fields():
        if not entry.field.is_required() or values.get(entry.key, AUTO) != AUTO:
            continue
        values.pop(entry.key, None)
        meaning = entry.meaning
        if meaning.by_data in hints:
            values[entry.key] = hints[meaning.by_data]
        elif meaning.by_preset is not None:
            values[entry.key] = meaning.by_preset[preset]
        elif entry.key in usual:
            values[entry.key] = usual[entry.key]
    return values


def compared(table: Table, affecting: set[Affects]) -> dict[str, Scalar]:
    """Take those settings alone that affect what is named, without what is switched off, by dotted keys."""
    found: dict[str, Scalar] = {}
    for name, field in type(table).model_fields.items():
        value = getattr(table, name)
        if isinstance(value, Table):
            off = isinstance(value, Switchable) and not value.on
            inner = {key: each for key, each in compared(value, affecting).items() if not off or key == "on"}
            found |= {f"{field.alias}.{key}": each for key, each in inner.items()}
        elif meaning_of(field).affects in affecting:
            found[str(field.alias)] = value
    return found


def nearest(key: str, known: Mapping[str, Any]) -> str:
    """Give advice for a key that there isn't: those that look like it, else the tables there are."""
    if inner := [name for name in known if name.startswith(f"{key}.")]:
        return f"this is a table; its keys are {', '.join(inner)}"
    last = {name.rpartition(".")[2]: name for name in known}
    alike = difflib.get_close_matches(key, list(known), n=3, cutoff=0.6)
    alike += [last[name] for name in difflib.get_close_matches(key.rpartition(".")[2], list(last), n=3, cutoff=0.75)]
    if alike:
        return f"did you mean {' or '.join(dict.fromkeys(alike[:3]))}?"
    tables = sorted({name.partition(".")[0] + "." for name in known if "." in name})
    single = sorted(name for name in known if "." not in name)
    return f"there are {', '.join(single)}, and the tables {', '.join(tables)} (docs/configuration.md)"


def _explained(problem: Any, known: Mapping[str, FieldInfo]) -> str:
    """One line on what pydantic refused."""
    key = ".".join(str(word) for word in problem["loc"])
    if problem["type"] == "missing":
        inner = [name for name in known if name.startswith(f"{key}.")]
        hint = meaning_of(known[key]).by_data if key in known else None
        family = f', or the data\'s family says its hint "{hint}"' if hint else ""
        return f"{', '.join(inner) or key}: nothing decides this here; give a value{family}"
    field = known.get(key)
    allowed = problem["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return f"{key}={problem['input']}: {allowed}" + (f" ({field.description})" if field is not None else "")
