"""The families of domains by name.

A new one is a file with a subclass of `Family` and a line here, or an entry point of another package in the group
``fmtda.domains``.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from fmtda.domains.examples import DataError
from fmtda.domains.family import DataSpec, Family
from fmtda.protocol.printable import printable
from fmtda.protocol.registry import Registry, UnknownName, whole_class
from fmtda.protocol.settings import RunSettings

FAMILIES: Registry[type[Family]] = Registry(
    "fmtda.domains",
    {
        "digits": "fmtda.domains.digits:Digits",
        "digit-five": "fmtda.domains.digit_five:DigitFive",
        "image-folders": "fmtda.domains.image_folders:ImageFolders",
        "feature-vectors": "fmtda.domains.feature_vectors:FeatureVectors",
        "scene-folders": "fmtda.domains.scene_folders:SceneFolders",
        "streets": "fmtda.domains.streets:Streets",
        "fragments": "fmtda.domains.molecules:Fragments",
        "qm9": "fmtda.domains.molecules:QM9",
        "zinc250k": "fmtda.domains.molecules:Zinc250k",
    },
)


def family(name: str) -> Family:
    """Return the family of that name.

    Raises
    ------
    DataError
        If there is none; the message lists the names there are.
    """
    try:
        return _made(whole_class(FAMILIES[name], Family, "family of domains"))
    except UnknownName as error:
        raise DataError(f"data.name={printable(name)}: {error}") from None


@cache
def _made(kind: type[Family]) -> Family:
    """The one object of a family's class, which holds no state."""
    return kind()


def spec_of(settings: RunSettings, data_dir: str | None = None) -> DataSpec:
    """Return what the run's domains are read with; a client's own folder stands in for the server's."""
    folder = settings.data.dir if data_dir is None else data_dir
    return DataSpec(Path(folder) if folder else None, settings.seed, settings.class_names, settings.shape)
