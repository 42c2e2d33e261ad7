"""Derives seeds, by which every random draw goes.

A draw depends on the root seed and on words such as the client's name, the round and the purpose, never on
Flower's node ids, which are random, nor on partition numbers, which a deployment lacks.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def seed_for(root: int, *words: str | int) -> int:
    """Derive a 63-bit seed from the root seed and every word, through numpy's SeedSequence.

    Examples
    --------
    >>> seed_for(0, "svhn/0003", 2, "train") == seed_for(0, "svhn/0003", 2, "train")
    True
    """
    digest = hashlib.sha256("\x1f".join(str(word) for word in words).encode()).digest()
    entropy = [root, *np.frombuffer(digest, dtype=np.uint32).tolist()]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator_for(root: int, *words: str | int) -> torch.Generator:
    """Make a CPU generator of its own for one client, round and purpose."""
    import torch  # seconds to import, and the command line only needs the names

    return torch.Generator().manual_seed(seed_for(root, *words))
