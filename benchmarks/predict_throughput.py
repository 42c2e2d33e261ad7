"""Measures pictures a second of ``fmtda predict`` beside a bare PyTorch loop over the same files.

    python -m benchmarks.predict_throughput --output benchmarks/results/predict_throughput.json

The files are JPEGs cut out of scikit-learn's two photographs; the model is that of a digits client of the default
preset, F_g and F_l each with a G of its own, with weights that nobody trained: they don't change the speed. The bare
loop is what one writes by hand: a DataLoader, the same decoding, the same two networks, the mean of their
probabilities, the likeliest class. It writes nothing, has no mixture, and stops at an unreadable file. It is timed
without and with worker processes. ``fmtda predict`` is timed as the command runs after its start, CSV file included.
All take turns; the ratio is that of its pictures a second to those of the faster bare loop, by medians.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch.utils.data import DataLoader, Dataset

from fmtda.adaptation.augment import prepare
from fmtda.adaptation.mixture import fit
from fmtda.adaptation.predictor import Predictor
from fmtda.adaptation.registry import build
from fmtda.benchmarking.provenance import provenance
from fmtda.benchmarking.settings import adaptation_settings
from fmtda.domains.decoding import decode_picture
from fmtda.face.predict import label
from fmtda.face.progress import ErrorLines
from fmtda.inference.adapted_model import AdaptedModel
from fmtda.strategies.dualadapt.parameters import DualAdaptParameters

BATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--side", type=int, default=128, help="height and width of a file in pixels")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = untrained()
    with tempfile.TemporaryDirectory() as folder:
        files = cut_out(Path(folder), arguments.pictures, arguments.side)
        ways: dict[str, Callable[[], object]] = {
            "bare": lambda: bare(model, files, workers=0),
            "bare, 2 workers": lambda: bare(model, files, workers=2),
            "fmtda predict": lambda: predict(model, files, Path(folder) / "labels.csv"),
        }
        for way in ways.values():
            way()  # warm-up
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.repeats):
            for name, way in ways.items():
                began = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    options = f"--pictures {arguments.pictures} --side {arguments.side} --repeats {arguments.repeats}"
    result = {
        "command": f"python -m benchmarks.predict_throughput {options} --threads {arguments.threads}",
        **provenance(),
        "seconds": seconds,
        "pictures_per_second": {name: arguments.pictures / median for name, median in medians.items()},
        "ratio": min(medians["bare"], medians["bare, 2 workers"]) / medians["fmtda predict"],
    }
    print(json.dumps(result, indent=2))
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")


def untrained() -> AdaptedModel:
    """Make the parts of a digits client's model, with a mixture over 128 features."""
    settings = adaptation_settings({"device": "cpu"})
    name = settings.network.name
    networks = {head: build(name, 10, settings.shape, seed).eval() for seed, head in enumerate(("global", "local"))}
    features = torch.rand(400, networks["global"].feature_size, generator=torch.Generator().manual_seed(0))
    mixture = fit(features, settings.own(DualAdaptParameters).components, seed=0)
    return AdaptedModel(settings, "blend/0000", Predictor(networks, mixture=mixture, parts="untrained"))


def cut_out(folder: Path, count: int, side: int) -> list[Path]:
    """Cut JPEGs out at random places of the photographs."""
    rng, photographs = np.random.default_rng(0), [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    files = [folder / f"{i:06d}.jpg" for i in range(count)]
    for i, file in enumerate(files):
        photograph = photographs[i % 2]
        top, left = (int(rng.integers(extent - side)) for extent in photograph.shape[:2])
        Image.fromarray(photograph[top : top + side, left : left + side]).save(file, quality=90)
    return files


class Files(Dataset):
    """A data set of the pictures, each decoded when it is asked for."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> np.ndarray:
        return decode_picture(self.files[place], 32, 32)


@torch.no_grad()
def bare(model: AdaptedModel, files: list[Path], workers: int) -> list[int]:
    """Label by a loop as one writes it by hand."""
    labels: list[int] = []
    for pictures in DataLoader(Files(files), batch_size=BATCH, num_workers=workers):
        inputs = prepare(pictures, standardise=True)
        p_g, p_l = (network(inputs).softmax(dim=1) for network in model.networks.values())
        labels += ((p_g + p_l) / 2).argmax(dim=1).tolist()
    return labels


def predict(model: AdaptedModel, files: list[Path], output: Path) -> None:
    """Do what the command does between its first and its last line."""
    with output.open("w", newline="") as stream:
        label(model, files, Path("run"), "csv", stream, None, ErrorLines())


if __name__ == "__main__":
    main()
