"""Writes docs/configuration.md (stdout): ``python -m fmtda.face.configuration_page > docs/configuration.md``."""

import annotated_types
from pydantic.fields import FieldInfo

from fmtda.domains.registry import FAMILIES
from fmtda.protocol.generative_settings import GenerativeSettings, ImageModelSettings, MoleculeModelSettings
from fmtda.protocol.settings import PRESETS, RunSettings, Scalar, Settings
from fmtda.protocol.workloads import WORKLOADS

HEAD = """# Configuration

Every key works in `fmtda simulate -c KEY=VALUE` and `fmtda generate -c KEY=VALUE`, and in `flwr run --run-config
'KEY=VALUE'`; the common ones are also options of the commands. `flwr run` alone takes its defaults from
`[tool.flwr.app.config]` of pyproject.toml. To resume with `fmtda`, give `--resume RUN_DIR`. A wrong key, type or range
is refused before anything starts. Values the paper's notes don't give are our choice.

Many settings fit into a TOML file: `fmtda simulate --config run.toml`; `generate`, `join` and `benchmark` read one too.
It holds text, whole numbers, numbers, true and false; the keys of a table are joined to its name by a dot. What `-c`
says wins over the file, and the other options win over both. A key given twice with `-c` is refused.

```toml
rounds = 5
targets = "svhn,usps"
partition = "dirichlet"
alpha = 0.3
```

`workload` says what the clients train: `adaptation` (the default, `fmtda simulate`), or a generative model
(`fmtda generate`). One flat set of keys serves them all. A key that the run's workload doesn't have is left alone while
it holds its default, and refused by name otherwise.

`auto` means: as the workload or its preset says, or as the family of domains says (the tables at the end). The number
of simulated clients' CPUs and GPUs is no run config: `fmtda simulate --client-cpus 1 --client-gpus 0.5`, or
`flwr run --federation-config 'num-supernodes=4 client-resources-num-cpus=1'`.

This page is written by `python -m fmtda.face.configuration_page`.
"""

TABLE_HEAD = """
| key | default | allowed | meaning |
|---|---|---|---|
"""

WORKLOAD_ROW = (
    f"| `workload` | adaptation | {', '.join(f'`{name}`' for name in WORKLOADS)} | what the clients train |\n"
)

SECTIONS: dict[str, type[RunSettings]] = {
    "Every workload": RunSettings,  # type: ignore[type-abstract]  # nothing here makes an instance
    "`adaptation`": Settings,
    "Every generative model": GenerativeSettings,
    "Models of pictures: `ddpm` and `ncsn`": ImageModelSettings,
    "Models of molecules: `graph-nvp` and `mpgvae`": MoleculeModelSettings,
    **{f"`{name}`": settings for name, settings in WORKLOADS.items() if issubclass(settings, GenerativeSettings)},
}

FAMILIES_HEAD = """
## What `auto` means by data

For `adaptation`. `source`, `targets`, `classes` and `input-shape` are the data's own too, partly found in its files:
`fmtda data list`. A generative model's clients share the data's source domain where `targets` names no other.

"""


def page() -> str:
    """Write the whole page as Markdown."""
    sections = "".join(f"\n## {title}\n{TABLE_HEAD}{_rows(settings)}" for title, settings in SECTIONS.items())
    sections = sections.replace(TABLE_HEAD, TABLE_HEAD + WORKLOAD_ROW, 1)
    presets = "\n## What `auto` means by preset\n\nFor `adaptation`.\n\n" + _table(
        list(PRESETS["default"]),
        {name: {key: str(value).lower() for key, value in values.items()} for name, values in PRESETS.items()},
    )
    models = {name: each.auto for name, each in WORKLOADS.items() if issubclass(each, GenerativeSettings)}
    by_model = "\n## What `auto` means by model\n\n" + _table(
        list(dict.fromkeys(key for auto in models.values() for key in auto)),
        {name: {key: str(value) for key, value in auto.items()} for name, auto in models.items()},
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
    return HEAD + sections + presets + by_model + families


def _rows(settings: type[RunSettings]) -> str:
    """Write a row for each key that a class of settings adds or says anew; `workload` has its row already."""
    own = [settings.model_fields[name] for name in settings.__annotations__ if name in settings.model_fields]
    return "".join(_row(field) for field in own if field.alias != "workload" and not _told_below(settings, field))


def _told_below(settings: type[RunSettings], field: FieldInfo) -> bool:
    """Tell whether every workload says itself what the key means."""
    below = [each for each in SECTIONS.values() if settings in each.__bases__]
    return bool(below) and all(str(field.alias).replace("-", "_") in each.__annotations__ for each in below)


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
    names: dict[object, str] = {bool: "true, false", int: "whole number", float: "number", str: "text"}
    return " ".join([names[field.annotation], *[", ".join(bounds)]]).strip()


def _table(keys: list[str] | tuple[str, ...], columns: dict[str, dict[str, str]]) -> str:
    head = f"| key | {' | '.join(f'`{name}`' for name in columns)} |\n|---|{'---|' * len(columns)}\n"
    return head + "".join(f"| `{key}` | {' | '.join(c.get(key, '-') for c in columns.values())} |\n" for key in keys)


if __name__ == "__main__":
    print(page(), end="")
