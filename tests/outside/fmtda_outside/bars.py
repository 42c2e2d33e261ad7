"""A family of domains: bars that lie or stand, in two lights."""

from typing import ClassVar

import numpy as np
import torch

from fmtda.domains.examples import Examples
from fmtda.domains.family import Family, Part

COUNTS = {"train": 80, "test": 40}
LIGHTS = {"day": (40, 200), "night": (10, 90)}


class Bars(Family):
    """Drawn from the seed."""

    name = "bars"
    kind = "photographs"
    origin = "drawn"
    classes = ("lying", "standing")
    input_shape = (3, 16, 16)
    domains = tuple(LIGHTS)
    default_source = "day"
    default_targets = ("night",)
    training: ClassVar = {
        "network": "one-convolution",
        "scenery": False,
        "pretraining-steps": 60,
        "pretraining-batch": 16,
        "pretraining-learning-rate": 1e-2,
        "plain-steps": 5,
        "server-steps": 2,
        "server-batch": 8,
        "head-steps": 3,
        "head-batch": 16,
        "network-steps": 2,
        "network-batch": 8,
        "network-learning-rate": 1e-3,
        "self-training-steps": 2,
        "self-training-batch": 8,
        "self-training-learning-rate": 1e-3,
        "personal-batch": 8,
    }

    def load(self, domain: str, part: Part, spec) -> Examples:
        self.check([domain], spec)
        rng = self.generator(domain, part, spec.seed)
        dark, bright = LIGHTS[domain]
        labels = np.arange(COUNTS[part]) % 2
        pictures = rng.normal(dark, 6, (len(labels), 3, 16, 16))
        for picture, label, place in zip(pictures, labels, rng.integers(2, 12, len(labels)), strict=True):
            bar = picture[:, place : place + 3] if label == 0 else picture[:, :, place : place + 3]
            bar += bright - dark
        return Examples(torch.from_numpy(pictures.clip(0, 255).astype(np.uint8)), torch.from_numpy(labels))
