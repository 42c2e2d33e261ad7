"""Makes graphs of molecules the examples of a model: judges samples, and writes and draws them.

Our choice: how many molecules are compared and drawn.
"""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmtda.generative.example_kind import ExampleKind, Judge
from fmtda.generative.model import ModelSettings
from fmtda.protocol.tables import setting

JUDGED_PROPERTIES = 2000
"""How many molecules have their properties compared, of the real and of the sampled ones at most: a QED takes a
millisecond."""

DRAWN = 200
"""How many samples are in a drawing at most."""


class MoleculeModelSettings(ModelSettings):
    """What the models of molecules share."""

    usual = {
        "data.name": "fragments",
        "rounds": 20,
        "training.steps": 100,
        "training.learning-rate": 3e-3,
        "training.moments": "fresh",
        "training.ema-decay": 0.5,
    }

    node_width: int = setting(64, ge=1, description="numbers that the state of a node has in their graph networks")
    temperature: float = setting(1.0, ge=0, le=2, description="what the prior's spread is multiplied by in sampling")


class MoleculeGraphs(ExampleKind):
    """This is the kind of int8 graphs (N, V, V) of `generative.molecules`; `class_names` are the table of atoms.

    RDKit is imported when something is judged or drawn: clients train without it.
    """

    suffix = ".smi"

    def check(self, settings: Any) -> None:
        if len(settings.shape) != 2 or settings.shape[0] != settings.shape[1]:
            shape = "x".join(map(str, settings.shape))
            raise ValueError(
                f"data.name={settings.data.name}: its inputs are {shape} and no graphs of molecules, which "
                f"{settings.workload} learns; take data of molecules: fragments, qm9 or zinc250k"
            )

    def examples(self, inputs: Any, settings: Any) -> Tensor:
        """Return the graphs as they are, in memory."""
        return inputs[:]

    def judge(self, real: Tensor, labels: Tensor, settings: Any, seed: int) -> Judge:
        """Make a judge of validity, uniqueness and novelty, without and with valency correction, and of properties.

        The Wasserstein distances stand beside those between two halves of the real molecules.
        """
        from fmtda.generative.molecule_quality import assess, distances, half_against_half, histograms, properties
        from fmtda.generative.molecules import all_smiles

        form = _format(settings)
        real_smiles = [text for text in all_smiles(real.numpy(), form) if text]
        chosen = np.random.default_rng(seed).permutation(len(real_smiles))[:JUDGED_PROPERTIES]
        real_values = properties([real_smiles[place] for place in chosen], form)
        half_to_half = half_against_half(real_values, seed)
        known = set(real_smiles)

        def quality(samples: Tensor) -> dict[str, Any]:
            plain, mended = (assess(samples.numpy(), form, known, correct) for correct in (False, True))
            values = properties(plain.smiles[:JUDGED_PROPERTIES], form)
            return {
                "samples": len(samples),
                **plain.figures(),
                "with_valency_correction": mended.figures(),
                "wasserstein": distances(values, real_values),
                "wasserstein_half_to_half": half_to_half,
                "histograms": histograms({"training": real_values, "sampled": values}),
            }

        return quality

    def picture(self, samples: Tensor, settings: Any) -> Tensor:
        """Draw the molecules side by side; a sample that is no valid one has a place that says so."""
        from PIL import Image

        from fmtda.generative.molecule_drawing import grid

        smiles, legends = _shown(samples[:DRAWN], settings)
        with Image.open(io.BytesIO(grid(smiles, ".png", legends)), formats=("PNG",)) as drawing:
            return torch.from_numpy(np.array(drawing.convert("RGB"))).permute(2, 0, 1)

    def write(self, samples: Tensor, file: Path, settings: Any) -> None:
        """Write a line a valid sample, its SMILES and its number from 0, and beside it a drawing of the first ones."""
        from fmtda.generative.molecule_drawing import grid

        smiles, legends = _shown(samples, settings)
        lines = "".join(f"{text} {place}\n" for place, text in enumerate(smiles) if text)
        _write_whole(file.with_suffix(".svg"), grid(smiles[:DRAWN], ".svg", legends[:DRAWN]))
        _write_whole(file, lines.encode())


def _shown(samples: Tensor, settings: Any) -> tuple[list[str], list[str]]:
    """Canonical SMILES, empty where a sample is no valid molecule, and what to write below each."""
    from fmtda.generative.molecules import all_smiles

    smiles = [text if text and "." not in text else "" for text in all_smiles(samples.numpy(), _format(settings))]
    return smiles, ["" if text else "not valid" for text in smiles]


def _format(settings: Any):
    from fmtda.generative.molecules import GraphFormat

    return GraphFormat(settings.class_names, settings.shape[0])


def _write_whole(file: Path, content: bytes) -> None:
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    aside.write_bytes(content)
    aside.rename(file)
