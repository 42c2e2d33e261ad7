"""Reads the features and pictures that clients agreed to show, and leaves out what no client could have sent."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord

from fmtda.domains.reading_rights import Unreadable
from fmtda.domains.registry import family
from fmtda.face.run_files import LONGEST_CAUSE, own_file
from fmtda.protocol.illustration import check_illustration
from fmtda.protocol.printable import printable
from fmtda.protocol.settings import RunSettings
from fmtda.server.illustration import FILE, Illustration, read_illustration


def read_examples(run: Path, settings: RunSettings, left_out: list[str]) -> Illustration | None:
    """Read what the run directory holds, whoever made it.

    Parameters
    ----------
    run : Path
    settings : RunSettings
    left_out : list of str
        Gets a line for each domain that can't be shown.

    Returns
    -------
    Illustration or None
        None where nothing can be shown.
    """
    if not (run / FILE).exists():
        return None
    try:
        found = read_illustration(run) if own_file(run, FILE) else None
    except Unreadable:
        raise
    except (ValueError, AttributeError, RuntimeError):
        found = None
    if found is None:
        left_out.append(f"{FILE}: not of fmtda")
        return None
    features = {arrays["features-before"].shape[-1:] for arrays in found.arrays.values() if "features-before" in arrays}
    kept = {}
    for domain, arrays in found.arrays.items():
        try:
            _check(arrays, settings, features)
            kept[domain] = arrays
        except ValueError as error:
            left_out.append(printable(f"{FILE}: {domain}: {error}", LONGEST_CAUSE))
    clients = tuple(name for name in found.clients if isinstance(name, str))
    return Illustration(kept, clients) if kept else None


def _check(arrays: Mapping[str, np.ndarray], settings: RunSettings, features: set[tuple[int, ...]]) -> None:
    """Hold a domain's arrays to what a client may send; the source has no pictures, and all have as many features."""
    if len(features) != 1:
        raise ValueError("domains have features of different sizes")
    record = ArrayRecord({name: Array(array) for name, array in arrays.items()})
    shape = settings.shape if "pictures" in arrays else (0,)
    (size,) = next(iter(features))
    check_illustration(record, len(settings.class_names), size, shape, family(settings.data.name).segmentation)
