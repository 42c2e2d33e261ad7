"""Domain adaptation on the server: pre-training before round 1, accuracy by domain, personalising at the end."""

import time
from collections.abc import Mapping
from typing import Any

import torch
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from fmtda.adaptation.heads import decisive
from fmtda.adaptation.network import Network
from fmtda.adaptation.registry import build
from fmtda.domains.registry import family
from fmtda.protocol.records import check_records, config_record, from_record, to_record
from fmtda.protocol.runtime import choose_device
from fmtda.protocol.seeds import seed_for
from fmtda.protocol.settings import Settings
from fmtda.server import checkpoints, uploads
from fmtda.server.checkpoints import Checkpoint
from fmtda.server.illustration import illustrate
from fmtda.server.metrics import (
    accuracy_by_domain,
    check_counts,
    confusion_by_domain,
    label_free_by_domain,
    summarise,
)
from fmtda.server.newcomers import newcomers_of
from fmtda.server.pretraining import pretrained
from fmtda.server.roster import Cohort
from fmtda.server.rounds import Federation, NoClientAnswered, first_reason
from fmtda.server.source import Source
from fmtda.server.workload import Counts
from fmtda.strategies.dual_adapt import DualAdapt
from fmtda.strategies.registry import STRATEGIES


class AdaptationRun:
    """The workload `adaptation`, see `server.workload.Workload`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def strategy(self) -> Strategy:
        device = choose_device(self.settings.device)
        self.source = Source.load(self.settings, device)
        self.network = new_network(self.settings, device)
        self.algorithm = STRATEGIES[self.settings.strategy](self.settings, self.network, self.source)
        return self.algorithm

    def begin(self, federation: Federation) -> ArrayRecord:
        """Algorithm 1, line 1: pre-train G and F_g, and measure where the run starts from (round 0)."""
        settings, progress, network = self.settings, federation.progress, self.network
        began = time.perf_counter()
        plain_settings = settings.changed(standardise=False, randomise=False, scenery=False)
        plain_source_only, failures = None, []
        if plain_settings != settings:
            plain = new_network(settings, self.source.device)
            pretrained(plain, self.source.plain(), settings, settings.plain_steps, "plain reference", progress)
            plain_source_only, _, failures = self.evaluate_global(
                federation, to_record(plain.state_dict()), plain_settings, "clients evaluate the plain reference"
            )
        report = pretrained(network, self.source, settings, settings.pretrain_steps, "pre-training", progress)
        pretraining_seconds = time.perf_counter() - began
        arrays = to_record(network.state_dict())
        federation.run.keep_pretrained(network.state_dict())
        source_only, confusion, more_failures = self.evaluate_global(
            federation, arrays, settings, "clients evaluate the pre-trained model"
        )
        federation.write_down(
            {
                "round": 0,
                "phase": "round",
                "pretraining": report,
                "pretraining_seconds": pretraining_seconds,
                "source_only": source_only,
                "plain_source_only": plain_source_only or source_only,
                "accuracy": {domain: {"global": value} for domain, value in source_only.items()},
                "confusion": confusion,
                "clients": {},
                "failures": failures + more_failures,
            }
        )
        checkpoints.write(federation.run.checkpoints, 0, from_record(arrays))
        progress.round_done(0, settings.rounds, source_only)
        return arrays

    def evaluate_global(
        self, federation: Federation, arrays: ArrayRecord, settings: Settings, stage: str
    ) -> tuple[dict[str, float], dict[str, list[int]], list[str]]:
        """Accuracy and confusion by domain of a model as it is, F_g alone, with nothing local to a client; failures."""
        config = config_record(settings.changed(strategy="source-only"), 0)
        content = RecordDict({"model": arrays, "config": config})
        messages = [Message(content, dst_node_id=n, message_type="evaluate") for n in federation.roster.names]
        phase = federation.ask(stage, messages, self.check_evaluation)
        if not phase.replies:
            raise NoClientAnswered(f"no client could evaluate the pre-trained model: {first_reason(phase.failures)}")
        counts = {name: phase.metrics(name) for name in phase.replies}
        heads = accuracy_by_domain(counts).items()
        accuracy = {domain: by_head["global"] for domain, by_head in heads if "global" in by_head}
        return accuracy, confusion_by_domain(counts), phase.failures

    def check_evaluation(self, content: RecordDict) -> None:
        check_records(content)
        check_counts(content["metrics"], len(self.settings.class_names), family(self.settings.data).segmentation)

    def measured(self, counts: Counts) -> dict[str, Any]:
        return {
            "accuracy": accuracy_by_domain(counts),
            "confusion": confusion_by_domain(counts),
            "label_free": label_free_by_domain(counts),
        }

    def headline(self, line: Mapping[str, Any]) -> dict[str, float]:
        return {domain: decisive(heads, self.settings.inference) for domain, heads in line["accuracy"].items()}

    def after_training(self, server_round: int, arrays: ArrayRecord) -> ArrayRecord:
        """The clients evaluate the model itself."""
        return arrays

    def state(self) -> dict[str, Tensor]:
        """Nothing: what a strategy of these adds is in the model."""
        return {}

    def restore(self, checkpoint: Checkpoint) -> None:
        checkpoint.refuse_other(self.settings.workload)

    def round_done(self, federation: Federation, line: Mapping[str, Any]) -> None:
        """Nothing more."""

    def finish(self, federation: Federation, arrays: ArrayRecord) -> None:
        """Keep W_S of the final G, personalise where that is asked for, and ask the clients for examples to show."""
        if isinstance(self.algorithm, DualAdapt):
            mixture = self.algorithm.source_mixture(self.settings.rounds + 1, arrays)
            uploads.keep_source_mixture(federation.run.uploads, mixture)
        if self.settings.personalise:
            self._personalise(federation, arrays)
        pretrained = federation.run.pretrained()
        if pretrained is not None:
            illustrate(federation, self.source, pretrained, self._as_evaluated(arrays), self.network)

    def summary(self, lines: list[dict[str, Any]], wall_seconds: float) -> dict[str, Any]:
        newcomers = newcomers_of(lines, self.settings.inference)
        return summarise(self.settings, lines, wall_seconds) | ({"newcomers": newcomers} if newcomers else {})

    def _personalise(self, federation: Federation, arrays: ArrayRecord) -> None:
        """Write down how good the clients' own copies are."""
        config = config_record(self.settings, self.settings.rounds)
        content = RecordDict({"model": arrays, "config": config})
        messages = [Message(content, dst_node_id=n, message_type="train.personalise") for n in federation.roster.names]
        phase = federation.ask("personalising", messages, self.check_evaluation)
        line = federation.line(self.settings.rounds, "personalise", phase)
        before = federation.run.metrics()[-1]["accuracy"]
        own = line["accuracy"]
        line["accuracy"] = {domain: before.get(domain, {}) | own.get(domain, {}) for domain in {**before, **own}}
        federation.write_down(line)
        federation.progress.note(
            "personalised: " + ", ".join(f"{domain} {value:.1f} %" for domain, value in self.headline(line).items())
        )

    def _as_evaluated(self, arrays: ArrayRecord) -> ArrayRecord:
        """The final model as the strategy sends it to who predicts."""
        config = config_record(self.settings, self.settings.rounds)
        one = Cohort([0])
        (message,) = self.algorithm.configure_evaluate(self.settings.rounds, arrays, config, one)
        return message.content["model"]


def new_network(settings: Settings, device: torch.device) -> Network:
    """A freshly initialised network of the run's architecture."""
    seed = seed_for(settings.seed, "network")
    precision = getattr(torch, settings.precision)
    return build(settings.network, len(settings.class_names), settings.shape, seed, precision).to(device)
