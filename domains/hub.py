"""Downloads sets of picture domains from the Hugging Face hub, through flwr-datasets, as folders of `image-folders`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from domains.examples import DataError

SETS: Mapping[str, str] = {"pacs": "flwrlabs/pacs", "office-home": "flwrlabs/office-home"}
"""The hub's name of each; their columns are `image`, `domain` and `label`."""

ENDING_OF = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"RI": ".webp", b"BM": ".bmp"}
"""By the first two bytes."""

WHOLE, ASIDE = ".whole", ".fetching"
"""A mark in every domain's folder, and where a download is written until it is whole."""


def fetch(name: str, root: Path) -> None:
    """Download a set into ``ROOT/DOMAIN/CLASS/NUMBER.jpg``; nothing happens where its folders are there already.

    Parameters
    ----------
    name : str
        A key of `SETS`.
    root : Path
        Created if need be.

    Raises
    ------
    DataError
        If the folder holds something else, or the download fails.
    """
    there = [folder for folder in root.iterdir() if folder.is_dir() and folder.name != ASIDE] if root.is_dir() else []
    if any((folder / WHOLE).exists() for folder in there):
        return
    if there:
        raise DataError(f"{root} holds {there[0].name} and is no download of {name}; name a new folder")
    try:
        from flwr_datasets import FederatedDataset

        rows = FederatedDataset(dataset=SETS[name], partitioners={"train": 1}).load_split("train")
    except Exception as error:  # the hub's client raises its own, the network's and Python's
        reason = " ".join(str(error).split())
        raise DataError(
            f"{name} ({SETS[name]}) could not be downloaded ({reason[:200]}); check the network, or unpack the set by "
            f"hand as {root}/DOMAIN/CLASS/*.jpg"
        ) from error
    write_folders(rows, root)


def write_folders(rows: Any, root: Path) -> None:
    """Write a set's pictures as the bytes they came in.

    Parameters
    ----------
    rows : datasets.Dataset
        With the columns `image`, `domain` (text) and `label` (with class names).
    root : Path
        A domain's folder appears whole or not at all.
    """
    from datasets import Image

    names = rows.features["label"].names
    raw = rows.cast_column("image", Image(decode=False))
    aside = root / ASIDE
    shutil.rmtree(aside, ignore_errors=True)
    for number, row in enumerate(raw):
        content = row["image"]["bytes"] or Path(row["image"]["path"]).read_bytes()
        folder = aside / row["domain"] / names[row["label"]]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:06d}{ENDING_OF.get(content[:2], '.jpg')}").write_bytes(content)
    for folder in aside.iterdir():
        (folder / WHOLE).touch()
        folder.rename(root / folder.name)
    aside.rmdir()
