"""Writes docs/configuration.md (stdout): ``python -m fmtda.face.configuration_page > docs/configuration.md``."""

import annotated_types
from pydantic.fields import FieldInfo

from fmtda.domains.family import HINTS
from fmtda.domains.registry import FAMILIES, family
from fmtda.generative.registry import MODELS
from fmtda.protocol.settings import PRESETS, AdaptationSettings, GenerativeSettings, RunSettings
from fmtda.protocol.tables import Entry, Scalar, Table
from fmtda.strategies.composition import settings_of
from fmtda.strategies.registry import USUAL_STRATEGY, algorithms

USUAL = USUAL_STRATEGY["adaptation"]

HEAD = f"""# Configuration

A run is decided by settings, and these stand in tables. A setting has a dotted key, `{USUAL}.components`. All these
are the same:

- `fmtda simulate -c {USUAL}.components=5`
- `fmtda simulate --config run.toml`, where the file has a line `components = 5` below `[{USUAL}]`
- `flwr run . --run-config '{USUAL}.components=5'`, whose defaults are `[tool.flwr.app.config]` of pyproject.toml

The common settings are also options of the commands. `-c` wins over a file, and an option over both. To resume, give
`--resume RUN_DIR`. A wrong key, type or range is refused before anything starts, and the nearest right key is named.

`workload` says what the clients train: `adaptation` (`fmtda simulate`), or a generative model (`fmtda generate`). A run
has the tables of its workload, and one with the parameters of its algorithm (`strategy`). A key of another algorithm
or model is left alone while it holds its default, and refused by name otherwise.

`auto` means: as the data say, else as the preset or the workload says; see the tables at the end. Values that the
paper's notes don't give are our choice. How many CPUs and GPUs a simulated client gets is no setting:
`fmtda simulate --client-cpus 1 --client-gpus 0.5`, or
`flwr run --federation-config 'num-supernodes=4 client-resources-num-cpus=1'`.

This page is written by `python -m fmtda.face.configuration_page`.
"""

TABLE_HEAD = """
| key | default | allowed | meaning |
|---|---|---|---|
"""

PARTS: dict[str, type[Table]] = {
    "Every run": RunSettings,
    "Domain adaptation": AdaptationSettings,
    "Generative models": GenerativeSettings,
}
"""What a run of each kind of workload has, whatever its algorithm and model."""

FAMILIES_HEAD = """
## What `auto` means by data

A family of domains says in general terms, its hints, what fits its data. They are no keys: the second table names the
settings that take each of them.

"""

TAKERS_HEAD = """
Which settings take these hints as their `auto`:

| hint | what it says | settings |
|---|---|---|
"""


def page() -> str:
    """Write the whole page as Markdown."""
    told: set[str] = set()
    sections = ""
    for title, table in PARTS.items():
        fresh = [entry for entry in table.fields() if entry.key not in told]
        told |= {entry.key for entry in fresh}
        sections += _section(title, fresh)
    for each in algorithms():
        sections += _section(f"`{each.name}`: {each.title}", list(each.parameters.fields(f"{each.name}.")))
    for name in MODELS:
        sections += _section(f"`{name}`", list(MODELS[name].settings.fields(f"{name}.")))
    settings_types = [settings_of("adaptation", each.name) for each in algorithms("adaptation")]
    by_preset = {entry.key: entry.meaning.by_preset for each in settings_types for entry in each.fields()}
    switched = {key: values for key, values in by_preset.items() if values is not None}
    presets = "\n## What `auto` means by preset\n\nFor domain adaptation.\n\n" + _table(
        list(switched),
        {preset: {key: _shown(values[preset]) for key, values in switched.items()} for preset in PRESETS},
    )
    usual = {name: MODELS[name].settings.usual for name in MODELS}
    by_model = "\n## What `auto` means by model\n\n" + _table(
        list(dict.fromkeys(key for values in usual.values() for key in values)),
        {name: {key: str(value) for key, value in values.items()} for name, values in usual.items()},
    )
    families = {name: family(name).training for name in FAMILIES if family(name).training}
    hints = list(dict.fromkeys(hint for training in families.values() for hint in training))
    by_data = FAMILIES_HEAD + _table(
        hints, {name: {hint: _shown(values.get(hint)) for hint in hints} for name, values in families.items()}, "hint"
    )
    takers: dict[str, list[str]] = {}
    for settings_type in (*settings_types, *(settings_of(name, USUAL_STRATEGY["generative"]) for name in MODELS)):
        for entry in settings_type.fields():
            if entry.meaning.by_data in HINTS and entry.key not in takers.setdefault(entry.meaning.by_data, []):
                takers[entry.meaning.by_data].append(entry.key)
    by_data += TAKERS_HEAD + "".join(
        f"| `{hint}` | {HINTS[hint]} | {', '.join(f'`{key}`' for key in takers.get(hint, []))} |\n" for hint in HINTS
    )
    return HEAD + sections + presets + by_model + by_data


def _section(title: str, entries: list[Entry]) -> str:
    """Write a table of settings; nothing where there are none."""
    return f"\n## {title}\n{TABLE_HEAD}{''.join(map(_row, entries))}" if entries else ""


def _shown(value: Scalar | None) -> str:
    return "as the preset" if value is None else str(value).lower()


def _row(entry: Entry) -> str:
    field = entry.field
    default = "auto" if field.is_required() else str(field.default).lower() if field.default != "" else "(empty)"
    return f"| `{entry.key}` | {default} | {_allowed(field)} | {field.description} |\n"


def _allowed(field: FieldInfo) -> str:
    options = getattr(field.annotation, "__args__", None)
    if options:
        return ", ".join(f"`{option}`" for option in options)
    signs = {annotated_types.Ge: "≥", annotated_types.Gt: ">", annotated_types.Le: "≤", annotated_types.Lt: "<"}
    bounds = []
    for constraint in field.metadata:
        for kind, sign in signs.items():
            if isinstance(constraint, kind):
                bounds.append(f"{sign} {getattr(constraint, kind.__name__.lower())}")
    names: dict[object, str] = {bool: "true, false", int: "whole number", float: "number", str: "text"}
    return " ".join([names[field.annotation], *[", ".join(bounds)]]).strip()


def _table(keys: list[str], columns: dict[str, dict[str, str]], first: str = "key") -> str:
    head = f"| {first} | {' | '.join(f'`{name}`' for name in columns)} |\n|---|{'---|' * len(columns)}\n"
    return head + "".join(f"| `{key}` | {' | '.join(c.get(key, '-') for c in columns.values())} |\n" for key in keys)


if __name__ == "__main__":
    print(page(), end="")
