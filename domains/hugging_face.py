"""Downloads sets of picture domains from the Hugging Face hub, through flwr-datasets, as folders of `image-folders`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmtda.domains.examples import DataError
from fmtda.domains.untrusted_files import text_of

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
    for folder in there:
        if not (folder / WHOLE).exists() or text_of(folder / WHOLE).split()[:1] != [name]:
            raise DataError(f"{root} holds {folder.name} and is no download of {name}; name a new folder")
    if there and len(there) == int(text_of(there[0] / WHOLE).split()[1]):
        return
    try:
        from flwr_datasets import FederatedDataset

        rows = FederatedDataset(dataset=SETS[name], partitioners={"train": 1}).load_split("train")
    except Exception as error:  # the hub's client raises its own, the network's and Python's
        reason = " ".join(str(error).split())
        raise DataError(
            f"{name} ({SETS[name]}) could not be downloaded ({reason[:200]}); check the network, or unpack the set by "
            f"hand as {root}/DOMAIN/CLASS/*.jpg"
        ) from error
    write_folders(rows, root, name)


def write_folders(rows: Any, root: Path, name: str) -> None:
    """Write a set's pictures as the bytes they came in.

    Parameters
    ----------
    rows : datasets.Dataset
        With the columns `image`, `domain` (text) and `label` (with class names).
    root : Path
        A domain's folder appears whole or not at all.
    name : str
        The set's, which each folder's mark keeps beside the number of domains: fewer are a download cut short.

    Raises
    ------
    DataError
        If a domain or class of the download would be a folder elsewhere by its name.
    """
    from datasets import Image

    names = rows.features["label"].names
    for called in {*names, *rows.unique("domain")}:
        if called in ("", ".", "..") or "/" in called:
            raise DataError(f"the download has a folder called {called!r}, which no folder may be; get another set")
    raw = rows.cast_column("image", Image(decode=False))
    aside = root / ASIDE
    shutil.rmtree(aside, ignore_errors=True)
    for number, row in enumerate(raw):
        content = row["image"]["bytes"] or Path(row["image"]["path"]).read_bytes()
        folder = aside / row["domain"] / names[row["label"]]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:06d}{ENDING_OF.get(content[:2], '.jpg')}").write_bytes(content)
    domains = list(aside.iterdir())
    for folder in domains:
        (folder / WHOLE).write_text(f"{name} {len(domains)}\n")
        shutil.rmtree(root / folder.name, ignore_errors=True)  # of a download cut short
        folder.rename(root / folder.name)
    aside.rmdir()
