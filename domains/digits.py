"""Holds the family `digits`: real handwritten digits and four shifted domains, out of what Python packages ship."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn import functional

from fmtda.domains import rendered_digits
from fmtda.domains.background_patches import patches
from fmtda.domains.cache import cached
from fmtda.domains.distortions import blurred, halved, warped
from fmtda.domains.examples import Examples
from fmtda.domains.family import DataSpec, Family, Part

# Raised whenever a change here or in a file that draws for us changes a picture.
RECIPE_VERSION = 3

HANDWRITTEN_TOTALS = {"handwritten": 900, "blend": 450, "pen": 447}
HANDWRITTEN_TESTS = {"handwritten": 100, "blend": 150, "pen": 149}
VARIED_TRAIN = 1000
RENDERED_COUNTS: dict[Part, int] = {"train": 1000, "test": 500}


class Digits(Family):
    """Holds digits that need no download.

    =============  ======  =====  ==========================================================================
    domain         train   test   what
    =============  ======  =====  ==========================================================================
    `handwritten`  800     100    scikit-learn's digits, real handwriting in 8x8, enlarged; light on black
    `blend`        1,000   150    300 and 150 others of them on patches of photographs, |patch - digit|
    `fonts`        1,000   500    printed ones in colour, see `rendered_digits.fonts`
    `street`       1,000   500    printed ones in house numbers, see `rendered_digits.street`
    `pen`          1,000   149    298 and 149 others of the handwritten ones by another pen and scanner: hard
                                  edges, thinner or thicker, slanted, bent, less contrast
    =============  ======  =====  ==========================================================================

    No handwritten digit is in two domains or in two parts. The training parts of `blend` and `pen` show each
    of theirs three or four times, changed in different ways; the test parts once.
    """

    name = "digits"
    kind = "digits"
    origin = "embedded: scikit-learn's digits and photographs, matplotlib's typefaces"
    classes = tuple("0123456789")
    input_shape = (3, 32, 32)
    domains = ("handwritten", "blend", "fonts", "street", "pen")
    default_source = "handwritten"
    default_targets = ("blend", "fonts", "street", "pen")
    training: ClassVar = {
        "network": "small-cnn",
        "pretraining-learning-rate": 4e-3,
        "server-batch": 64,
        "head-batch": 64,
        "network-learning-rate": 2e-4,
        "pretraining-steps": 600,
        "pretraining-batch": 64,
        "plain-steps": 200,
        "server-steps": 20,
        "head-steps": 40,
        "self-training-steps": 120,
        "self-training-batch": 64,
        "self-training-learning-rate": 2e-2,
        "personal-batch": 128,
        "network-batch": 64,
        "network-steps": 40,
    }

    def load(self, domain: str, part: Part, spec: DataSpec) -> Examples:
        self.check([domain], spec)
        seed = spec.seed
        key = {"family": self.name, "domain": domain, "part": part, "seed": seed, "recipe": RECIPE_VERSION}
        return cached(key, lambda: self._made(domain, part, seed))

    def _made(self, domain: str, part: Part, seed: int) -> Examples:
        rng = self.generator(domain, part, seed)
        match domain:
            case "handwritten":
                images, labels = handwriting(domain, part, seed)
                return Examples(_coloured(enlarged(images)), labels)
            case "blend":
                return _blend(*handwriting(domain, part, seed), part, rng)
            case "pen":
                return _pen(*handwriting(domain, part, seed), part, rng)
            case "fonts":
                return rendered_digits.fonts(RENDERED_COUNTS[part], part, rng)
            case "street":
                return rendered_digits.street(RENDERED_COUNTS[part], part, rng)
        raise ValueError(f"domain {domain!r} is made nowhere")


def handwriting(domain: str, part: Part, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pick the handwritten digits that are this part of this domain's and nobody else's.

    Parameters
    ----------
    domain : {"handwritten", "blend", "pen"}
        Whose they are.
    part : {"train", "test"}
        Which of the domain's two parts.
    seed : int
        Fixes the split, in which each class has the same share everywhere.

    Returns
    -------
    images : torch.Tensor
        float32 (N, 1, 8, 8), how much ink, 0 to 1.
    labels : torch.Tensor
        int64 (N,).
    """
    images, labels = load_digits().images.astype(np.float32) / 16, load_digits().target
    left = np.arange(len(labels))
    for owner, total in HANDWRITTEN_TOTALS.items():
        mine, left = _drawn(left, total, labels, seed)
        if owner == domain:
            break
    train, test = _drawn(mine, total - HANDWRITTEN_TESTS[domain], labels, seed)
    chosen = train if part == "train" else test
    return torch.from_numpy(images[chosen])[:, None], torch.from_numpy(labels[chosen])


def enlarged(images: torch.Tensor, side: int = 32) -> torch.Tensor:
    """Enlarge 8x8 pictures smoothly to float32 (N, 1, side, side), with an eighth of the side as margin all round."""
    margin = side // 8
    inner = functional.interpolate(images, size=side - 2 * margin, mode="bicubic", align_corners=False)
    return functional.pad(inner.clamp(0, 1), [margin] * 4)


def _drawn(indices: np.ndarray, count: int, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` of the indices, with the same share of each class, and the rest."""
    if count == len(indices):
        return indices, indices[:0]
    return train_test_split(indices, train_size=count, stratify=labels[indices], random_state=seed % 2**32)


def _varied(images: torch.Tensor, labels: torch.Tensor, part: Part) -> tuple[torch.Tensor, torch.Tensor]:
    """For the training part, each digit again and again until there are VARIED_TRAIN."""
    again = torch.arange(VARIED_TRAIN if part == "train" else len(labels)) % len(labels)
    return images[again], labels[again]


def _blend(images: torch.Tensor, labels: torch.Tensor, part: Part, rng: np.random.Generator) -> Examples:
    """MNIST-M's recipe (Ganin and Lempitsky 2015): the absolute difference of a patch and a digit."""
    images, labels = _varied(images, labels, part)
    patch = patches(len(labels), 32, int(rng.integers(2**32)), part).float()
    return Examples((patch - 255 * enlarged(images)).abs().round().byte(), labels)


def _pen(images: torch.Tensor, labels: torch.Tensor, part: Part, rng: np.random.Generator) -> Examples:
    """Another pen, another hand's slant, another scanner."""
    images, labels = _varied(images, labels, part)
    count = len(labels)
    written = enlarged(images, side=64)
    written = warped(written, rng, rotation=8, slant=(0.0, 0.45), scale=(0.75, 1.05), shift=0.04, bend=0.02)
    # The enlarged picture falls off smoothly from the middle of the stroke: cutting it lower
    # makes the pen thicker.
    threshold = torch.from_numpy(rng.uniform(0.3, 0.7, (count, 1, 1, 1))).float()
    ink = halved(torch.sigmoid((written - threshold) / 0.05), 32)

    paper = torch.from_numpy(rng.uniform(15, 90, (count, 1, 1, 1)) + rng.normal(0, 8, (count, 3, 1, 1))).float()
    colour = torch.from_numpy(rng.uniform(150, 245, (count, 1, 1, 1)) + rng.normal(0, 12, (count, 3, 1, 1))).float()
    scanned = blurred(torch.lerp(paper.expand(-1, -1, 32, 32), colour, ink), rng, (0.0, 0.6))
    scanned = scanned + torch.from_numpy(rng.normal(0, 5, scanned.shape)).float()
    return Examples(scanned.clamp(0, 255).round().byte(), labels)


def _coloured(grey: torch.Tensor) -> torch.Tensor:
    """Grey (N, 1, H, W) from 0 to 1 as uint8 (N, 3, H, W)."""
    return (255 * grey).round().byte().expand(-1, 3, -1, -1).contiguous()
