"""Measures what a model of molecules reaches by training time; no Flower, one process, resumable.

    python -m benchmarks.molecules graph-nvp -c data.name=qm9 -c data.dir=DIR -c graph-nvp.precision=bfloat16 \\
        --steps 4800 --output OUT
    python -m benchmarks.molecules mpgvae -c data.name=qm9 -c data.dir=DIR --steps 32000 --output OUT

The model, its data and its training are those of `fmtda generate`; ``-c`` changes a setting. Trains on the training
part, and looks at the moving average of the weights after 1/32, 1/16, ... and all of the steps: the likelihood of the
test part; valid, unique and novel among samples at several temperatures. A look counts no training time. `state.pt` in
the folder holds a state of not long ago: the same command goes on from there. Then come reconstruction, the same
figures with valency correction, properties by Wasserstein distance beside those of two halves of the training data,
and drawings.
"""

import argparse
import copy
import json
import shlex
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
import torch
from matplotlib import pyplot
from torch import Tensor

from benchmarks.generative_runs import settings_words, shown
from benchmarks.molecule_likelihood import likelihood, order_dependence, reconstructed
from fmtda.adaptation.batches import shuffled_batches
from fmtda.benchmarking.command_line import command_line, refusals
from fmtda.benchmarking.provenance import provenance
from fmtda.domains.molecules import Molecules
from fmtda.domains.registry import family, spec_of
from fmtda.generative.graph_nvp import GraphNVP
from fmtda.generative.molecule_drawing import draw_grid
from fmtda.generative.molecule_quality import assess, distances, draw_properties, half_against_half, properties
from fmtda.generative.molecules import GraphFormat, all_smiles
from fmtda.generative.mpgvae import MPGVAE
from fmtda.generative.registry import build
from fmtda.generative.training import descend, step_size
from fmtda.protocol.settings import GenerativeSettings
from fmtda.server.startup import effective_settings

MODELS = ("graph-nvp", "mpgvae")
MoleculeModel = GraphNVP | MPGVAE
LOOKS = 6
KEPT_EVERY = 500
"""Steps between two states on disk."""
EMA_DECAY = 0.999
TEST_MOLECULES = 4096
PROPERTY_MOLECULES = 10_000
BATCH = 512
"""Molecules that are sampled or encoded at once."""


def main() -> None:
    arguments = parsed()
    settings: GenerativeSettings = arguments.settings
    torch.set_num_threads(arguments.threads)
    arguments.output.mkdir(parents=True, exist_ok=True)
    data, spec = family(settings.data.name), spec_of(settings)
    assert isinstance(data, Molecules)
    train, test = (data.load(settings.data.name, part, spec).inputs[:] for part in ("train", "test"))
    known = set(written(train.numpy(), data.form()))
    print(data.account(spec) or f"{settings.data.name}: nothing left out", flush=True)

    training = Training(arguments, train)
    looks = [round(arguments.steps / 2**k) for k in reversed(range(LOOKS))]
    for steps in looks[len(training.curve) :]:
        while training.step < steps:
            training.run(min(steps, training.step + KEPT_EVERY))
            training.keep()
        training.curve.append(look(training, test, known, arguments, data.form()))
        training.keep()
        print(json.dumps(training.curve[-1]), flush=True)
    result = {
        "command": f"python -m benchmarks.molecules {arguments.given}",
        **provenance(),
        "settings": shown(settings),
        "left_out": data.account(spec).partition("; left out are")[0],
        "parameters": sum(parameter.numel() for parameter in training.model.parameters()),
        "curve": training.curve,
        "reconstructed": reconstructed(training.average, [train, test]),
        **order_dependence(training.average, test[:TEST_MOLECULES]),
        **final(training, train, known, arguments, data.form()),
    }
    (arguments.output / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    draw_curve(training.curve, result["temperature"], arguments.output / "curve.svg")


class Training:
    """A training: Adam on the loss with the settings' step sizes, and a moving average; kept on disk now and then.

    Attributes
    ----------
    model, average : GraphNVP or MPGVAE
    step : int
        Steps done.
    seconds, processor_seconds : float
        Of these alone: by the clock, and of all threads.
    curve : list of dict
        What was seen at each look.
    file : Path
    """

    def __init__(self, arguments: argparse.Namespace, examples: Tensor) -> None:
        self.settings: GenerativeSettings = arguments.settings
        model = build(self.settings.workload, self.settings, self.settings.seed)
        assert isinstance(model, MoleculeModel)
        self.model = model
        self.average = copy.deepcopy(self.model).eval()
        rate = self.settings.training.learning_rate
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=rate, fused=True)
        self.generator = torch.Generator().manual_seed(self.settings.seed)
        self.examples, self.steps = examples, arguments.steps
        self.step, self.seconds, self.processor_seconds, self.curve = 0, 0.0, 0.0, []
        self.file = arguments.output / "state.pt"
        if self.file.exists():
            state = torch.load(self.file, weights_only=True)
            for name in ("model", "average", "optimiser"):
                getattr(self, name).load_state_dict(state[name])
            self.generator.set_state(state["generator"])
            self.step, self.seconds, self.processor_seconds, self.curve = state["progress"]
            print(f"continuing after step {self.step}", flush=True)

    def run(self, steps: int) -> None:
        """Train until `steps` are done.

        Raises
        ------
        generative.training.LossNotFinite
            If the loss is not finite.
        """
        began, began_processor = time.perf_counter(), time.process_time()
        left = steps - self.step
        descend(
            self.model,
            self.optimiser,
            self.examples,
            shuffled_batches(len(self.examples), self.settings.training.batch, left, self.generator),
            self._step_sizes(left),
            self.generator,
            gradient_clip=self.settings.training.gradient_clip,
            on_step=self._average,
        )
        self.seconds += time.perf_counter() - began
        self.processor_seconds += time.process_time() - began_processor

    def keep(self) -> None:
        """Write the state, whole or not at all."""
        state = {name: getattr(self, name).state_dict() for name in ("model", "average", "optimiser")}
        progress = (self.step, self.seconds, self.processor_seconds, self.curve)
        aside = self.file.with_suffix(".new")
        torch.save({**state, "generator": self.generator.get_state(), "progress": progress}, aside)
        aside.rename(self.file)

    def _step_sizes(self, count: int) -> Iterable[float]:
        training = self.settings.training
        return [
            step_size(
                step,
                peak=training.learning_rate,
                schedule=training.schedule,
                warm_up=training.warm_up_steps,
                steps=self.steps,
            )
            for step in range(self.step, self.step + count)
        ]

    def _average(self, steps: int) -> None:
        self.step += steps
        decay = min(EMA_DECAY, self.step / (self.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)


@torch.no_grad()
def look(
    training: Training, test: Tensor, known: set[str], arguments: argparse.Namespace, form: GraphFormat
) -> dict[str, Any]:
    """Take the figures after some of the steps."""
    return {
        "step": training.step,
        "epochs": training.step * training.settings.training.batch / len(training.examples),
        "seconds": training.seconds,
        "processor_seconds": training.processor_seconds,
        "likelihood": likelihood(training.average, test[:TEST_MOLECULES]),
        "quality": [
            {"temperature": temperature, **assess(graphs, form, known).figures()}
            for temperature in arguments.temperatures
            for graphs in [samples(training.average, arguments.samples, temperature)]
        ],
    }


def written(graphs: np.ndarray, form: GraphFormat) -> list[str]:
    """Write the SMILES of the graphs that have one, as all of data do."""
    return [smiles for smiles in all_smiles(graphs, form) if smiles is not None]


def samples(model: MoleculeModel, count: int, temperature: float) -> np.ndarray:
    """Draw graphs, int8 (count, V, V), by the same draws at every temperature."""
    generator = torch.Generator().manual_seed(1)
    model.temperature = temperature
    drawn = [model.sample(min(BATCH, count - start), generator) for start in range(0, count, BATCH)]
    return torch.cat(drawn).numpy()


def final(
    training: Training, train: Tensor, known: set[str], arguments: argparse.Namespace, form: GraphFormat
) -> dict[str, Any]:
    """Take sampling time, correction and properties, and draw, at the temperature that promises the most."""
    model, folder = training.average, arguments.output
    best = max(training.curve[-1]["quality"], key=promise)
    began = time.perf_counter()
    graphs = samples(model, arguments.samples, best["temperature"])
    seconds = time.perf_counter() - began
    quality = assess(graphs, form, known)
    draw = np.random.default_rng(0).permutation(len(train))[:PROPERTY_MOLECULES]
    real = properties(written(train[torch.from_numpy(draw)].numpy(), form), form)
    sampled = properties(quality.smiles, form)
    draw_properties({"training data": real, "samples": sampled}, folder / "properties.svg")
    if quality.smiles:
        draw_grid(quality.smiles[:40], folder / "samples.svg")
    drawn = torch.from_numpy(draw[[0, 1]])
    path = model.interpolate(train[drawn], 24, torch.Generator().manual_seed(3)).numpy()
    shown = [smiles if smiles and "." not in smiles else "" for smiles in all_smiles(path, form)]
    draw_grid(shown, folder / "interpolation.svg", ["" if smiles else "invalid" for smiles in shown])
    return {
        "temperature": best["temperature"],
        "sampling_seconds": seconds,
        "quality": quality.figures(),
        "quality_with_valency_correction": assess(graphs, form, known, correct=True).figures(),
        "wasserstein": {"to_training": distances(sampled, real), "half_to_half": half_against_half(real, 0)},
    }


def promise(quality: dict[str, Any]) -> float:
    """Choose a temperature by this: the percentage of samples that are valid, the first of their kind and novel."""
    return quality["product"]


def draw_curve(curve: list[dict[str, Any]], temperature: float, file: Path) -> None:
    """Draw valid, unique and novel at one temperature, and the likelihood, against training time."""
    minutes = [seen["processor_seconds"] / 60 for seen in curve]
    figure, (percent, likelihoods) = pyplot.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for name in ("valid", "unique", "novel"):
        figures = [
            quality[name] for seen in curve for quality in seen["quality"] if quality["temperature"] == temperature
        ]
        percent.plot(minutes, figures, marker="o", markersize=3, label=f"{name}, temperature {temperature:g}")
    percent.set(xlabel="training, minutes of one core", ylabel="percent", ylim=(0, 100))
    name = "bits per dimension" if "bits per dimension" in curve[0]["likelihood"] else "negative ELBO, nats"
    likelihoods.plot(minutes, [seen["likelihood"][name] for seen in curve], marker="o", markersize=3, color="black")
    likelihoods.set(xlabel="training, minutes of one core", ylabel=f"{name}, unseen molecules")
    percent.legend(frameon=False, fontsize=8)
    for axes in (percent, likelihoods):
        axes.set_xscale("log")
        axes.spines[["top", "right"]].set_visible(False)
    with matplotlib.rc_context({"svg.hashsalt": "fmtda"}):
        figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)


def parsed() -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.7, 0.85, 1.0, 1.15])
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    with refusals():
        arguments.settings = effective_settings({"workload": arguments.model, **arguments.config})
    told = [arguments.model, *settings_words(arguments.config)]
    told = ["data.dir=DIR" if word.startswith("data.dir=") else word for word in told]
    for name in ("steps", "threads", "samples"):
        told += [f"--{name}", str(getattr(arguments, name))]
    arguments.given = shlex.join(told)
    return arguments


if __name__ == "__main__":
    main()
