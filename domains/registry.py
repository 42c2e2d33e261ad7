"""Is the one place that knows all families; a new family is one new file and one line here."""

from __future__ import annotations

from pathlib import Path

from fmtda.domains.digit_five import DigitFive
from fmtda.domains.digits import Digits
from fmtda.domains.examples import DataError
from fmtda.domains.family import DataSpec, Family
from fmtda.domains.feature_vectors import FeatureVectors
from fmtda.domains.image_folders import ImageFolders
from fmtda.domains.molecules import QM9, Fragments, Zinc250k
from fmtda.domains.scene_folders import SceneFolders
from fmtda.domains.streets import Streets
from fmtda.protocol.settings import RunSettings

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *(Digits(), DigitFive(), ImageFolders(), FeatureVectors(), SceneFolders(), Streets()),
        *(Fragments(), QM9(), Zinc250k()),
    )
}


def family(name: str) -> Family:
    """Find the family of that name.

    Raises
    ------
    DataError
        If there is none; the message lists the names there are.
    """
    if name not in FAMILIES:
        raise DataError(f"unknown data {name!r}; allowed: {', '.join(FAMILIES)}")
    return FAMILIES[name]


def spec_of(settings: RunSettings, data_dir: str | None = None) -> DataSpec:
    """Say what the run's domains are read with; a client's own folder stands in for the server's."""
    folder = settings.data_dir if data_dir is None else data_dir
    return DataSpec(Path(folder) if folder else None, settings.seed, settings.class_names, settings.shape)
