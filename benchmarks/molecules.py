"""What GraphNVP reaches on molecules, by training time; no Flower, one process, resumable.

    python -m benchmarks.molecules --data qm9 --data-dir DIR --steps 20000 --output benchmarks/results/molecules/qm9

Trains on the training part with Adam, and looks at the moving average of the weights after 1/32, 1/16, ... and all of
the steps: bits per dimension of the test part; valid, unique and novel among samples at several temperatures. A look
counts no training time. `state.pt` in the folder holds a state of not long ago: the same command goes on from there.
Then come reconstruction of every molecule, the same figures with valency correction, properties by Wasserstein distance
beside those of two halves of the training data, and drawings.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
import torch
from matplotlib import pyplot
from torch import Tensor

from benchmarks.provenance import provenance
from domains.family import DataSpec
from domains.registry import family
from generative.graph_nvp import GraphNVP
from generative.molecule_drawing import draw_grid
from generative.molecule_quality import assess, distances, draw_properties, half_against_half, properties
from generative.molecules import GraphFormat, all_smiles

NETWORKS: dict[str, dict[str, Any]] = {
    "fragments": {"adjacency_turns": 2, "adjacency_width": 128, "node_width": 32},
    "qm9": {},
    "zinc250k": {"adjacency_turns": 1, "node_turns": 1, "adjacency_width": 128},
}
"""What differs from GraphNVP's defaults, by data."""

LOOKS = 6
KEPT_EVERY = 500
"""Steps between two states on disk."""
EMA_DECAY = 0.999
WARM_UP = 100
TEST_MOLECULES = 4096
PROPERTY_MOLECULES = 10_000
BATCH = 512
"""Molecules that are sampled or encoded at once."""


def main() -> None:
    arguments = parsed()
    torch.set_num_threads(arguments.threads)
    arguments.output.mkdir(parents=True, exist_ok=True)
    data = family(arguments.data)
    spec = DataSpec(arguments.data_dir)
    train, test = (data.load(arguments.data, part, spec).inputs for part in ("train", "test"))
    known = set(all_smiles(train[:].numpy(), data.form()))
    print(data.account(spec) or f"{arguments.data}: nothing left out", flush=True)

    training = Training(arguments, train, data.form())
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
        "left_out": data.account(spec).partition("; left out are")[0],
        "parameters": sum(parameter.numel() for parameter in training.model.parameters()),
        "batch": arguments.batch,
        "learning_rate": arguments.learning_rate,
        "noise": arguments.noise,
        "threads": arguments.threads,
        "curve": training.curve,
        "reconstructed": reconstructed(training.average, [train, test]),
        **final(training, train, known, arguments, data.form()),
    }
    (arguments.output / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    draw_curve(training.curve, result["temperature"], arguments.output / "curve.svg")


class Training:
    """Adam on the loss, with a moving average of the weights, kept on disk after every look.

    Attributes
    ----------
    model, average : GraphNVP
    step : int
        Steps done.
    seconds, processor_seconds : float
        Of these alone: by the clock, and of all threads.
    curve : list of dict
        What was seen at each look.
    file : Path
    """

    def __init__(self, arguments: argparse.Namespace, examples: Any, form: GraphFormat) -> None:
        torch.manual_seed(arguments.seed)
        size = {"nodes": form.size, "atom_kinds": len(form.atoms) + 1, "precision": arguments.precision}
        self.model = GraphNVP(**size, **NETWORKS[arguments.data], noise=arguments.noise)
        self.average = copy.deepcopy(self.model).eval()
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=arguments.learning_rate, fused=True)
        self.generator = torch.Generator().manual_seed(arguments.seed)
        self.examples, self.arguments = examples, arguments
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
        ArithmeticError
            If the loss is not finite.
        """
        began, began_processor = time.perf_counter(), time.process_time()
        while self.step < steps:
            chosen = torch.randint(len(self.examples), (self.arguments.batch,), generator=self.generator)
            loss = self.model.loss(self.examples[chosen], self.generator)
            if not math.isfinite(loss.item()):
                raise ArithmeticError(f"the loss is {loss.item()} at step {self.step}; take a smaller learning rate")
            self.optimiser.param_groups[0]["lr"] = self._rate()
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            self.step += 1
            decay = min(EMA_DECAY, self.step / (self.step + 10))
            with torch.no_grad():
                weights = zip(self.average.parameters(), self.model.parameters(), strict=True)
                for kept, new in weights:
                    kept.lerp_(new, 1 - decay)
        self.seconds += time.perf_counter() - began
        self.processor_seconds += time.process_time() - began_processor

    def keep(self) -> None:
        """Write the state, whole or not at all."""
        state = {name: getattr(self, name).state_dict() for name in ("model", "average", "optimiser")}
        progress = (self.step, self.seconds, self.processor_seconds, self.curve)
        aside = self.file.with_suffix(".new")
        torch.save({**state, "generator": self.generator.get_state(), "progress": progress}, aside)
        aside.rename(self.file)

    def _rate(self) -> float:
        """A linear rise, then half a cosine."""
        peak, steps = self.arguments.learning_rate, self.arguments.steps
        if self.step < WARM_UP:
            return peak * (self.step + 1) / WARM_UP
        return peak * (1 + math.cos(math.pi * (self.step - WARM_UP) / max(1, steps - WARM_UP))) / 2


@torch.no_grad()
def look(
    training: Training, test: Tensor, known: set[str], arguments: argparse.Namespace, form: GraphFormat
) -> dict[str, Any]:
    """The figures after some of the steps."""
    return {
        "step": training.step,
        "epochs": training.step * arguments.batch / len(training.examples),
        "seconds": training.seconds,
        "processor_seconds": training.processor_seconds,
        "bits_per_dimension": bits_per_dimension(training.average, test[:TEST_MOLECULES]),
        "quality": [
            {"temperature": temperature, **assess(graphs, form, known).figures()}
            for temperature in arguments.temperatures
            for graphs in [samples(training.average, arguments.samples, temperature)]
        ],
    }


def bits_per_dimension(model: GraphNVP, graphs: Tensor) -> dict[str, float]:
    """Of unseen molecules, by the same noise at every look."""
    generator = torch.Generator().manual_seed(0)
    densities = [model.log_density(graphs[i : i + BATCH], generator) for i in range(0, len(graphs), BATCH)]
    total = torch.cat([density.total for density in densities])
    bonds = torch.cat([density.bonds for density in densities]).mean().item()
    nats = {"bonds": -bonds, "atoms": bonds - total.mean().item()}
    return {"all": model.bits_per_dimension(total).mean().item(), **{f"nats_of_{key}": nats[key] for key in nats}}


def samples(model: GraphNVP, count: int, temperature: float, advance: Callable[[int], None] = lambda steps: None):
    """int8 (count, V, V), by the same draws at every temperature."""
    generator = torch.Generator().manual_seed(1)
    model.temperature = temperature
    drawn = [model.sample(min(BATCH, count - start), generator, advance) for start in range(0, count, BATCH)]
    return torch.cat(drawn).numpy()


def reconstructed(model: GraphNVP, parts: list[Any]) -> dict[str, int]:
    """How many of all molecules come back from their latent vectors exactly."""
    generator = torch.Generator().manual_seed(2)
    count = same = 0
    for graphs in parts:
        for start in range(0, len(graphs), BATCH):
            batch = graphs[start : start + BATCH]
            count += len(batch)
            same += int((model.decode(model.encode(batch, generator)) == batch).all(dim=(1, 2)).sum())
    return {"molecules": count, "exactly": same}


def final(
    training: Training, train: Any, known: set[str], arguments: argparse.Namespace, form: GraphFormat
) -> dict[str, Any]:
    """Sampling time, correction, properties and drawings, at the temperature that promises the most."""
    model, folder = training.average, arguments.output
    best = max(training.curve[-1]["quality"], key=promise)
    began = time.perf_counter()
    graphs = samples(model, arguments.samples, best["temperature"])
    seconds = time.perf_counter() - began
    quality = assess(graphs, form, known)
    draw = np.random.default_rng(0).permutation(len(train))[:PROPERTY_MOLECULES]
    real = properties(list(all_smiles(train[torch.from_numpy(draw)].numpy(), form)), form)
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


def promise(quality: dict[str, Any]) -> tuple[bool, float]:
    """What temperatures are chosen by: at least 95 % unique, then as many valid as can be."""
    return quality["unique"] >= 95, quality["valid"] if quality["unique"] >= 95 else quality["unique"]


def draw_curve(curve: list[dict[str, Any]], temperature: float, file: Path) -> None:
    """Valid, unique and novel at one temperature, and bits per dimension, against training time."""
    minutes = [seen["processor_seconds"] / 60 for seen in curve]
    figure, (percent, bits) = pyplot.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for name in ("valid", "unique", "novel"):
        figures = [
            quality[name] for seen in curve for quality in seen["quality"] if quality["temperature"] == temperature
        ]
        percent.plot(minutes, figures, marker="o", markersize=3, label=f"{name}, temperature {temperature:g}")
    percent.set(xlabel="training, minutes of one core", ylabel="percent", ylim=(0, 100))
    bits.plot(minutes, [seen["bits_per_dimension"]["all"] for seen in curve], marker="o", markersize=3, color="black")
    bits.set(xlabel="training, minutes of one core", ylabel="bits per dimension, unseen molecules")
    percent.legend(frameon=False, fontsize=8)
    for axes in (percent, bits):
        axes.set_xscale("log")
        axes.spines[["top", "right"]].set_visible(False)
    with matplotlib.rc_context({"svg.hashsalt": "fmtda"}):
        figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=NETWORKS, default="fragments")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--noise", type=float, default=0.4, help="upper end of the dequantisation; the paper's is 0.9")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.7, 0.85, 0.95, 1.0, 1.05])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    told = {"data": arguments.data, "steps": arguments.steps, "batch": arguments.batch, "seed": arguments.seed}
    told |= {"learning-rate": arguments.learning_rate, "noise": arguments.noise, "precision": arguments.precision}
    told |= {"threads": arguments.threads}
    arguments.given = " ".join(f"--{key} {value}" for key, value in told.items())
    return arguments


if __name__ == "__main__":
    main()
