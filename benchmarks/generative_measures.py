"""Measures a finished generative run beyond its own summary: many samples, one judge for all, the bound.

Everything is drawn from the moving average in the run's last checkpoint. All figures depend on the run directory and
the numbers given here alone, so that they can be measured again.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmtda.generative.ddpm import DDPM
from fmtda.generative.image_quality import PictureClassifier, frechet_distance, judge, train_classifier
from fmtda.generative.registry import MODELS
from fmtda.generative.sampling import draw
from fmtda.protocol.seeds import generator_for
from fmtda.protocol.settings import GenerativeSettings
from fmtda.protocol.tables import Scalar
from fmtda.server import checkpoints
from fmtda.server.generative import Results
from fmtda.server.pooled_data import held_out_by_client, pooled_examples
from fmtda.server.run_directory import RunDirectory, stored_run_config
from fmtda.strategies.composition import read_settings

BOUND_BATCH = 100
"""Pictures that the bound is computed of at once."""


class Judged:
    """A judge: real pictures and the classifier that was trained on them, one for all runs on the same data.

    Parameters
    ----------
    settings : GenerativeSettings
        Of any of these runs, of a model of pictures.
    """

    def __init__(self, settings: GenerativeSettings) -> None:
        self.real, labels = pooled_examples(settings)
        self.held_out = torch.cat(list(held_out_by_client(settings).values()))
        self.classifier: PictureClassifier = train_classifier(
            self.real, labels, len(settings.class_names), settings.seed
        )

    @staticmethod
    def key(settings: GenerativeSettings) -> tuple:
        """Tell what runs share that can have one judge."""
        return (
            settings.data.name,
            settings.data.targets,
            settings.data.target_limit,
            settings.seed,
            settings.model.image_size,
            settings.model.colour,
        )

    def of(self, samples: Tensor) -> dict[str, Any]:
        """Judge samples by distance, confidence and class shares."""
        quality = judge(self.classifier, self.real, samples)
        return {
            "frechet_distance": quality.frechet_distance,
            "confident_share": quality.confident_share,
            "class_shares": [round(share, 4) for share in quality.class_shares.tolist()],
        }

    def floor(self) -> dict[str, float]:
        """Take the distance of real pictures from real ones, which no model gets below but by chance.

        Once of held-out ones, and once of one half of the training part from the other.
        """
        order = torch.randperm(len(self.real), generator=torch.Generator().manual_seed(0))
        first, second = self.real[order[::2]], self.real[order[1::2]]
        return {
            "held_out": frechet_distance(self.classifier, self.real, self.held_out),
            "halves": frechet_distance(self.classifier, first, second),
        }


def opened(run: Path, changes: Mapping[str, Scalar] | None = None) -> Results:
    """Open a run's model with the average's weights, ready to draw; settings by dotted keys change how it samples."""
    settings = read_settings(stored_run_config(run)).changed(changes or {})
    checkpoint = checkpoints.latest(RunDirectory(run).checkpoints)
    if not isinstance(settings, GenerativeSettings) or checkpoint is None:
        raise ValueError(f"{run}: no finished run of fmtda generate; name one")
    results = Results(settings)
    results.restore(checkpoint)
    results.model.load_state_dict(results.average)
    return results


def sampled(results: Results, count: int) -> tuple[Tensor, float]:
    """Draw samples, and tell the seconds that they took; equal in number and seed for every run."""
    began = time.perf_counter()
    samples = draw(results.model, count, generator_for(results.settings.seed, "benchmark"))
    return samples, time.perf_counter() - began


def samplers(run: Path, judged: Judged, count: int, steps: int) -> dict[str, Any]:
    """Compare DDPM's ancestral sampler with `steps` of DDIM, with noise and without, by distance and seconds."""
    found = {}
    for name, implicit_steps, eta in (
        ("ancestral", 0, 0.0),
        (f"ddim-{steps}, eta 0", steps, 0.0),
        (f"ddim-{steps}, eta 1", steps, 1.0),
    ):
        results = opened(run, {"ddpm.implicit-steps": implicit_steps, "ddpm.implicit-eta": eta})
        samples, seconds = sampled(results, count)
        found[name] = {
            "steps": results.model.sampling_steps,
            "samples": count,
            "seconds": seconds,
            "frechet_distance": frechet_distance(judged.classifier, judged.real, samples),
        }
    return found


def bits_per_dimension(run: Path, pictures: Tensor) -> dict[str, float]:
    """Take DDPM's variational bound on held-out pictures with its parts, in bits per dimension."""
    model = opened(run).model.eval()
    assert isinstance(model, DDPM)
    generator = torch.Generator().manual_seed(0)
    parts = {"prior": 0.0, "transitions": 0.0, "decoder": 0.0, "total": 0.0}
    for batch in pictures.split(BOUND_BATCH):
        bound = model.bound(batch, generator)
        terms: Mapping[str, Tensor] = {**bound._asdict(), "transitions": bound.transitions.sum(), "total": bound.total}
        for name in parts:
            parts[name] += terms[name].item() * len(batch) / len(pictures)
    return {**parts, "pictures": len(pictures)}


def write_grid(samples: Tensor, results: Results, file: Path) -> None:
    """Write a grid of the first 64 samples."""
    MODELS[results.settings.workload].kind.write(samples[:64], file, results.settings)
