"""Writes docs/configuration.md from the settings: ``python -m fmtda.configuration_page > docs/configuration.md``."""

import annotated_types
from pydantic.fields import FieldInfo

from domains.registry import FAMILIES
from protocol.settings import PRESETS, Scalar, Settings

HEAD = """# Configuration

Every key works in `fmtda simulate -c KEY=VALUE`, in `flwr run --run-config 'KEY=VALUE'` and in
`[tool.flwr.app.config]` of pyproject.toml; the common ones are also options of `fmtda simulate`. A wrong key, type or
range is refused before anything starts. Values the paper's notes don't give are our choice throughout.

`auto` means: as the preset says (the switches of the extras), or as the family of domains says (the two tables at the
end). The number of simulated clients' CPUs and GPUs is no run config: `fmtda simulate --client-cpus 1 --client-gpus
0.5`, or `flwr run --federation-config 'num-supernodes=4 client-resources-num-cpus=1'`.

This page is written by `python -m fmtda.configuration_page`.

| key | default | allowed | meaning |
|---|---|---|---|
"""


FAMILIES_HEAD = """
## What `auto` means by data

`source`, `targets`, `classes` and `input-shape` are the data's own too, partly found in its files: `fmtda data list`.

"""


def page() -> str:
    """The whole page as Markdown."""
    rows = "".join(_row(field) for field in Settings.model_fields.values())
    presets = "\n## What `auto` means by preset\n\n" + _table(
        list(PRESETS["default"]),
        {name: {key: str(value).lower() for key, value in values.items()} for name, values in PRESETS.items()},
    )
    keys = list(dict.fromkeys(key for family in FAMILIES.values() for key in family.training))
    families = FAMILIES_HEAD + _table(
        keys,
        {
            name: {key: _shown(family.training.get(key)) for key in keys}
            for name, family in FAMILIES.items()
            if family.training
        },
    )
    return HEAD + rows + presets + families


def _shown(value: Scalar | None) -> str:
    return "as the preset" if value is None else str(value).lower()


def _row(field: FieldInfo) -> str:
    default = "auto" if field.is_required() else str(field.default).lower() if field.default != "" else "(empty)"
    return f"| `{field.alias}` | {default} | {_allowed(field)} | {field.description} |\n"


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
    names = {bool: "true, false", int: "whole number", float: "number", str: "text"}
    return " ".join([names[field.annotation], *[", ".join(bounds)]]).strip()


def _table(keys: list[str] | tuple[str, ...], columns: dict[str, dict[str, str]]) -> str:
    head = f"| key | {' | '.join(f'`{name}`' for name in columns)} |\n|---|{'---|' * len(columns)}\n"
    return head + "".join(f"| `{key}` | {' | '.join(c[key] for c in columns.values())} |\n" for key in keys)


if __name__ == "__main__":
    print(page(), end="")
