"""Tries values of a setting and judges each without a target's label, to choose one for all targets of a kind of data.

    python -m benchmarks.choose pretraining.steps 400,800,1600 -c data.name=streets
    python -m benchmarks.choose dualadapt.self-training.learning-rate 1e-3,4e-3 -c data.name=digit-five -c data.dir=DIR

Each value pre-trains the network as a run would (an equal one is read from ``pretraining.base-dir``), then adapts a
copy of it to three quarters of each target's unlabelled training part, in one process and without rounds: own BatchNorm
statistics, then self-training, where these are on. What is judged:

- the source hold-out, randomised as in training: percent right, or mean IoU of scenes;
- the same of the source's test part, randomised, after a client to which it was given without labels has adapted to it,
  by the mean of F_g and F_l: adaptation that harms where nothing is to be gained is not worth having elsewhere;
- the source's test part as it is, before and after G has taken on its statistics with the largest weight that a client
  might choose, where `dualadapt.batch-norm.on`: what sharpens predictions on a target must not harm here;
- on the last quarter, before and after adaptation: the criteria of `adaptation.validation_criteria`, averaged over the
  targets.

A target's labels are used nowhere here. The value with the best hold-out is named first, since a criterion on the
targets can be fooled by a collapse; where hold-outs are level (half a percent) those that lose least by own statistics
are left, then those with the best adapted source, and where these are level too (one example of a small source is more
than half a percent), view information decides.

Our choice: all numbers here, which are how much is judged (`JUDGED_SHARE` to `JUDGED_ROWS`) and what counts as level.
"""

import copy
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmtda.adaptation.batch_norm import reestimate
from fmtda.adaptation.batches import forward_slices
from fmtda.adaptation.inputs import Inputs
from fmtda.adaptation.network import Network
from fmtda.adaptation.registry import AUGMENTATIONS
from fmtda.adaptation.scores import mean_iou
from fmtda.adaptation.self_training import logits
from fmtda.adaptation.validation_criteria import (
    mean_entropy,
    prediction_information,
    soft_neighbourhood_density,
    view_information,
)
from fmtda.benchmarking.cells import PLACES
from fmtda.benchmarking.command_line import command_line, refusals
from fmtda.benchmarking.pooled_targets import PooledTargets
from fmtda.benchmarking.provenance import provenance
from fmtda.benchmarking.settings import adaptation_settings
from fmtda.domains.client import Client
from fmtda.domains.examples import Examples
from fmtda.domains.registry import family, spec_of
from fmtda.domains.source import Source
from fmtda.protocol.client_names import client_name
from fmtda.protocol.runtime import choose_device, prepare_to_compute
from fmtda.protocol.seeds import generator_for
from fmtda.protocol.settings import AdaptationSettings
from fmtda.protocol.tables import Scalar
from fmtda.server.adaptation import new_network
from fmtda.server.metrics import MEAN_IOU
from fmtda.server.pretraining import pretrained
from fmtda.server.progress import Lines
from fmtda.server.startup import check_source
from fmtda.server.workload_kinds import metric_of
from fmtda.strategies.dualadapt.client import largest_weight, localised, use_own_statistics
from fmtda.strategies.dualadapt.parameters import DualAdaptParameters

JUDGED_SHARE = 0.25
"""Part of a target's training examples that is judged and not adapted to: there, overfitting shows."""

JUDGED = 1000
"""Inputs of each target that are judged, at most."""

ADAPTED_SOURCE = 4000
"""Examples of the source's test part that are adapted to and judged, at most."""

JUDGED_ROWS = 4000
"""Predictions that a criterion sees, at most: of scenes, one a place."""

LEVEL = 0.5
"""Percent of the hold-out below which two values are level."""


def judge(settings: AdaptationSettings) -> dict[str, Any]:
    """Judge one value; nothing in the figures depends on a target's label."""
    began = time.perf_counter()
    device = choose_device(settings.device)
    source = Source.load(settings, device)
    network = new_network(settings, device)
    pretrained(network, source, settings, settings.pretraining.steps, "pre-training", Lines(metric_of(settings)))
    targets = PooledTargets.load(settings, device)
    before, after = {}, {}
    for domain, examples in zip(targets.domains, targets.trained, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            client = _client(domain, examples.without_labels(), settings, Path(folder))
            judged = client.inputs(client.test)
            before[domain] = criteria(network, judged, settings)
            own = copy.deepcopy(network).requires_grad_(False)
            use_own_statistics(own, client.inputs(client.train), client)
            after[domain] = criteria(localised(own, client), judged, settings)
    return {
        "hold_out": hold_out(network, source, settings),
        "source": adapted_source(network, source, settings),
        "own_statistics": own_statistics(network, settings),
        "before": _mean(before),
        "after": _mean(after),
        "by_target": {"before": before, "after": after},
        "seconds": time.perf_counter() - began,
    }


@torch.no_grad()
def hold_out(network: Network, source: Source, settings: AdaptationSettings) -> float:
    """Take the percent right, or mean IoU in percent, on a randomised look at the source hold-out."""
    inputs, labels = source.held_out(generator_for(settings.seed, "server", 0, "hold-out"))
    return _right([network], inputs, labels, settings)


def adapted_source(network: Network, source: Source, settings: AdaptationSettings) -> dict[str, float]:
    """Take `hold_out` of the source's test part, randomised, `before` and `after` adaptation to it without labels.

    And how many `labels` that was judged by.
    """
    generator = generator_for(settings.seed, "server", 0, "adapted source")
    examples = _source_test(settings)
    inputs, labels = examples.inputs[:], examples.labels[:]
    if source.randomise:
        inputs, labels = source.augmentation.randomise(inputs, labels, generator, source.backgrounds)
    with tempfile.TemporaryDirectory() as folder:
        client = _client(settings.data.source, Examples(inputs, labels), settings, Path(folder))
        unlabelled = replace(client, train=client.train.without_labels())
        judged, known = client.inputs(client.test), client.test.labels[:].long()
        before = _right([network], judged, known, settings)
        own = copy.deepcopy(network).requires_grad_(False)
        use_own_statistics(own, unlabelled.inputs(unlabelled.train), unlabelled)
        local = localised(copy.deepcopy(own), unlabelled)
        after = _right([own, local], judged, known, settings)
        return {"before": before, "after": after, "labels": int((known >= 0).sum())}


def own_statistics(network: Network, settings: AdaptationSettings) -> dict[str, float]:
    """Judge the source's test part, in percent as `hold_out`, `before` and `after` G has its BatchNorm statistics."""
    examples = _source_test(settings)
    augmentation = AUGMENTATIONS[family(settings.data.name).kind]
    inputs = Inputs(examples.inputs, augmentation, settings.inputs.standardise, _device(network))
    labels = examples.labels[:].long()
    before = _right([network], inputs, labels, settings)
    extra = settings.own(DualAdaptParameters).batch_norm
    if not extra.on:
        return {"before": before, "after": before}
    own = copy.deepcopy(network).requires_grad_(False)
    reestimate(own.feature_extractor, inputs, largest_weight(len(inputs), extra.share, extra.prior))
    return {"before": before, "after": _right([own], inputs, labels, settings)}


def _source_test(settings: AdaptationSettings) -> Examples:
    examples = family(settings.data.name).load(settings.data.source, "test", spec_of(settings)).with_known_labels()
    return examples.limited(ADAPTED_SOURCE, settings.seed)


def _device(network: Network) -> torch.device:
    return next(network.parameters()).device


@torch.no_grad()
def _right(networks: Sequence[Network], inputs: Inputs | Tensor, labels: Tensor, settings: AdaptationSettings) -> float:
    """Percent that the networks' mean probabilities get right, or mean IoU in percent."""
    predicted = torch.cat(
        [
            sum(network(inputs[part]).softmax(dim=1) for network in networks).argmax(dim=1)
            for part in forward_slices(inputs)
        ]
    ).to(labels.device)
    known = labels >= 0
    if metric_of(settings) != MEAN_IOU:
        return 100 * (predicted == labels)[known].float().mean().item()
    classes = len(settings.class_names)
    pairs = labels[known] * classes + predicted[known]
    return mean_iou(torch.bincount(pairs, minlength=classes**2).tolist())


@torch.no_grad()
def criteria(network: Network, inputs: Inputs, settings: AdaptationSettings) -> dict[str, float]:
    """Take the label-free criteria on some of a target's inputs, and on a changed view of these."""
    generator = torch.Generator().manual_seed(settings.seed)
    judged = torch.randperm(len(inputs), generator=generator)[:JUDGED]
    network.eval()
    plain, changed = [], []
    for part in forward_slices(inputs):
        if len(chosen := judged[part]):
            plain.append(logits(network, inputs[chosen]).softmax(dim=1))
            changed.append(logits(network, inputs.view(chosen, generator)).softmax(dim=1))
    probabilities, of_views = torch.cat(plain), torch.cat(changed)
    rows = torch.randperm(len(probabilities), generator=generator)[:JUDGED_ROWS]
    return {
        "mean_entropy": mean_entropy(probabilities),
        "prediction_information": prediction_information(probabilities),
        "soft_neighbourhood_density": soft_neighbourhood_density(probabilities[rows]),
        "view_information": view_information(probabilities, of_views),
    }


def chosen(tried: dict[str, dict[str, Any]]) -> str:
    """Choose the best hold-out; of level ones by own statistics, the adapted source, then view information."""
    best = max(result["hold_out"] for result in tried.values())
    level = {value: result for value, result in tried.items() if result["hold_out"] >= best - LEVEL}
    gains = {value: _gain(result["own_statistics"]) for value, result in level.items()}
    level = {value: result for value, result in level.items() if gains[value] >= max(gains.values()) - LEVEL}
    best = max(result["source"]["after"] for result in level.values())
    step = max(100 / result["source"]["labels"] for result in level.values())
    worst = best - max(LEVEL, 1.01 * step)  # a little more, for rounding
    level = {value: result for value, result in level.items() if result["source"]["after"] >= worst}
    return max(level, key=lambda value: level[value]["after"]["view_information"])


def _gain(figures: dict[str, float]) -> float:
    return figures["after"] - figures["before"]


def main(arguments: list[str] | None = None) -> None:
    parser = command_line(__doc__, "python -m benchmarks.choose")
    parser.add_argument("key", help="setting to choose a value for")
    parser.add_argument("values", help="comma list of values to try")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    given = parser.parse_args(arguments)
    with refusals():
        tried = {value: _tried({**given.config, given.key: value}) for value in given.values.split(",")}
    print(table(given.key, tried))
    print(f"chosen without a target's label: {given.key}={chosen(tried)}")
    if given.output:
        shown = {key: "DIR" if key in PLACES else value for key, value in given.config.items()}
        report = {"key": given.key, "config": shown, "chosen": chosen(tried), "tried": tried, **provenance()}
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(report, indent=1) + "\n")


def table(key: str, tried: dict[str, dict[str, Any]]) -> str:
    """Write what was tried as Markdown; arrows lead from before to after adaptation."""
    names = list(next(iter(tried.values()))["before"])
    of_source = ["source hold-out", "adapted source", "own statistics"]
    titles = [key, *of_source, *(name.replace("_", " ") for name in names), "seconds"]
    lines = [f"| {' | '.join(titles)} |"]
    lines.append("| ---: " * len(titles) + "|")
    for value, result in tried.items():
        moves = " | ".join(f"{result['before'][name]:.3f} → {result['after'][name]:.3f}" for name in names)
        source, own = (f"{result[of]['before']:.1f} → {result[of]['after']:.1f}" for of in ("source", "own_statistics"))
        lines.append(f"| {value} | {result['hold_out']:.1f} | {source} | {own} | {moves} | {result['seconds']:.0f} |")
    return "\n".join(lines)


def _client(domain: str, unlabelled: Examples, settings: AdaptationSettings, folder: Path) -> Client:
    """A client that adapts to `1 - JUDGED_SHARE` of a target's unlabelled training part; the rest is its test part."""
    order = torch.randperm(len(unlabelled), generator=generator_for(settings.seed, domain, "judged"))
    cut = max(2, round(JUDGED_SHARE * len(unlabelled)))
    parts = unlabelled.select(order[cut:]), unlabelled.select(order[:cut])
    return Client(client_name(domain, 0), settings, settings.rounds, folder, *parts)


def _tried(config: dict[str, Scalar]) -> dict[str, Any]:
    settings = adaptation_settings(config)
    check_source(settings)
    prepare_to_compute(settings.server_threads)
    return judge(settings)


def _mean(by_domain: dict[str, dict[str, float]]) -> dict[str, float]:
    names = next(iter(by_domain.values()))
    return {name: statistics.mean(found[name] for found in by_domain.values()) for name in names}


if __name__ == "__main__":
    main()
