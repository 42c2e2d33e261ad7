"""Holds the family `streets`: small street scenes with a class a pixel, drawn from the seed, in four looks."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from fmtda.domains.cache import cached
from fmtda.domains.examples import Examples
from fmtda.domains.family import DataSpec, Family, Part
from fmtda.domains.street_looks import LOOKS, render
from fmtda.domains.street_scenes import HEIGHT, WIDTH, StreetLayout, draw_scene
from fmtda.domains.street_shapes import CLASSES

# Raised whenever a change here, in street_scenes.py, street_shapes.py or street_looks.py changes a picture or a label.
RECIPE_VERSION = 1

COUNTS: dict[Part, int] = {"train": 200, "test": 100}

LAYOUTS: dict[str, StreetLayout] = {
    "game": StreetLayout(camera_height=(1.4, 1.9), horizon=(0.42, 0.5), bend=(-0.001, 0.001), storeys=(2, 4)),
    "palette": StreetLayout(camera_height=(2.0, 2.8), horizon=(0.38, 0.46), bend=(-0.001, 0.003), storeys=(1, 4)),
    "dusk": StreetLayout(camera_height=(1.2, 1.6), horizon=(0.44, 0.54), bend=(-0.002, 0.002), storeys=(2, 5)),
    "fog": StreetLayout(camera_height=(1.4, 2.2), horizon=(0.4, 0.5), bend=(-0.003, 0.001), storeys=(1, 4)),
}


class Streets(Family):
    """Draws street scenes that need no download, 200 to train and 100 to test in each domain.

    =========  =================================================================  =====================================
    domain     look                                                               camera and street
    =========  =================================================================  =====================================
    `game`     flat clean colours, a blue sky                                     a car's, nearly straight
    `palette`  other colours for every material, texture, a hazy sky              a van's, higher; bends to the right
    `dusk`     dark, an orange horizon; windows and lamps shine; noise            low; bends either way; taller houses
    `fog`      the farther, the paler; grey colours, blur                         bends to the left
    =========  =================================================================  =====================================

    Every scene is drawn anew: none is in two domains or in two parts.
    """

    name = "streets"
    kind = "scenes"
    origin = "embedded: drawn from the seed"
    segmentation = True
    classes = CLASSES
    input_shape = (3, HEIGHT, WIDTH)
    domains = tuple(LAYOUTS)
    default_source = "game"
    default_targets = ("palette", "dusk", "fog")
    training: ClassVar = {
        "network": "lraspp",
        "scenery": False,
        "pretraining-learning-rate": 2e-3,
        "server-batch": 4,
        "head-batch": 2048,
        "network-learning-rate": 1e-4,
        "pretraining-steps": 1200,
        "pretraining-batch": 8,
        "plain-steps": 100,
        "server-steps": 20,
        "head-steps": 100,
        "self-training-steps": 40,
        "self-training-batch": 8,
        "self-training-learning-rate": 3e-4,
        "personal-batch": 8,
        "network-batch": 8,
        "network-steps": 20,
    }

    def load(self, domain: str, part: Part, spec: DataSpec) -> Examples:
        self.check([domain], spec)
        key = {"family": self.name, "domain": domain, "part": part, "seed": spec.seed, "recipe": RECIPE_VERSION}
        return cached(key, lambda: drawn(domain, COUNTS[part], self.generator(domain, part, spec.seed)))


def drawn(domain: str, count: int, rng: np.random.Generator) -> Examples:
    """Draw that many scenes of a domain, uint8 (count, 3, HEIGHT, WIDTH) with int8 (count, HEIGHT, WIDTH) labels."""
    scenes = [render(draw_scene(LAYOUTS[domain], rng), LOOKS[domain], rng) for _ in range(count)]
    pictures, labels = zip(*scenes, strict=True)
    return Examples(torch.from_numpy(np.stack(pictures)), torch.from_numpy(np.stack(labels)))
