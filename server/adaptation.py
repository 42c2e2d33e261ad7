"""Does domain adaptation on the server: pre-training before round 1, accuracy by domain, personalising at the end."""

import math
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from flwr.app import ArrayRecord, RecordDict
from torch import Tensor

from fmtda.adaptation.heads import HEADS, decisive
from fmtda.adaptation.network import Network
from fmtda.adaptation.registry import NETWORKS, build
from fmtda.adaptation.scores import (
    CONFUSION,
    EvaluationCounts,
    accuracy_by_domain,
    confusion_by_domain,
    counted_metrics,
    label_free_by_domain,
)
from fmtda.domains.examples import DataError
from fmtda.domains.registry import family
from fmtda.domains.source import Source
from fmtda.protocol.metrics import NUM_EXAMPLES, TIME, Metric, check_metrics
from fmtda.protocol.records import BadReply, check_records, from_record, to_record
from fmtda.protocol.registry import UnknownName
from fmtda.protocol.runtime import choose_device
from fmtda.protocol.seeds import seed_for
from fmtda.protocol.settings import AdaptationSettings, RunSettings
from fmtda.protocol.tables import SettingsError
from fmtda.server import checkpoints
from fmtda.server.conversation import Cohort, Conversation, account, as_grid, first_reason
from fmtda.server.illustration import illustrate
from fmtda.server.metrics import ACCURACY, MEAN_IOU, newcomers_of, summarise
from fmtda.server.pretraining import pretrained
from fmtda.server.run_directory import RunDirectory
from fmtda.server.workload import NoClientAnswered, Workload
from fmtda.strategies.algorithm import Algorithm, FederatedStrategy
from fmtda.strategies.registry import algorithm, algorithms

EXTRAS_OFF: Mapping[str, bool] = {"inputs.standardise": False, "inputs.randomise": False, "inputs.scenery": False}
"""What the plain reference is trained and evaluated with."""

PERSONALISE = "personalise"
"""The phase of metrics.jsonl in which clients train copies of their own."""


class AdaptationRun(Workload):
    """Serves the workload `adaptation`."""

    kind = "adaptation"

    def __init__(self, settings: RunSettings, conversation: Conversation, run: RunDirectory) -> None:
        super().__init__(settings, conversation, run)
        assert isinstance(settings, AdaptationSettings)
        self.settings = settings
        self.algorithm: Algorithm = algorithm(settings.strategy)

    @classmethod
    def check(cls, settings: AdaptationSettings) -> None:
        """Refuse a network that there isn't, extras that don't go together, and late clients that fit nowhere."""
        _check_network(settings)
        _check_inputs(settings)
        _check_privacy(settings)
        _check_late(settings)
        algorithm(settings.strategy).check(settings)

    def strategy(self) -> FederatedStrategy:
        device = choose_device(self.settings.device)
        self.source = Source.load(self.settings, device)
        self.network = new_network(self.settings, device)
        self._strategy: FederatedStrategy = self.algorithm.server(self.settings, self.network, self.source)
        return self._strategy

    def begin(self) -> ArrayRecord:
        """Pre-train G and F_g (Algorithm 1, line 1), and measure where the run starts from (round 0)."""
        settings, progress, network = self.settings, self.conversation.progress, self.network
        steps = settings.pretraining
        began = time.perf_counter()
        plain_settings = settings.changed(EXTRAS_OFF)
        plain_source_only: dict[str, float] | None = None
        failures = self.conversation.unwritten()
        if plain_settings != settings:
            plain = new_network(settings, self.source.device)
            pretrained(plain, self.source.plain(), settings, steps.plain_steps, "plain reference", progress)
            plain_source_only, _, plain_failures = self.evaluate_global(
                to_record(plain.state_dict()), plain_settings, "clients evaluate the plain reference"
            )
            failures += plain_failures
        report = pretrained(network, self.source, settings, steps.steps, "pre-training", progress)
        pretraining_seconds = time.perf_counter() - began
        arrays = to_record(network.state_dict())
        self.run.keep_pretrained(network.state_dict())
        source_only, confusion, more_failures = self.evaluate_global(
            arrays, settings, "clients evaluate the pre-trained model"
        )
        self.run.write_down(
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
        checkpoints.write(self.run.checkpoints, 0, from_record(arrays))
        progress.round_done(0, settings.rounds, source_only)
        return arrays

    def evaluate_global(
        self, arrays: ArrayRecord, settings: AdaptationSettings, stage: str
    ) -> tuple[dict[str, float], dict[str, list[int]], list[str]]:
        """Have a model evaluated as it is, F_g alone, with nothing local to a client.

        Returns
        -------
        tuple
            Accuracy and confusion counts by domain; failures.
        """
        config = self.conversation.config(0, settings)
        messages = self.conversation.messages("evaluate.global", {"model": arrays}, config)
        phase = self.conversation.ask(stage, messages, partial(self._check_counted, (TIME,), "global"))
        if not phase.replies:
            raise NoClientAnswered(f"no client could evaluate the pre-trained model: {first_reason(phase.failures)}")
        counts = phase.counts
        heads = accuracy_by_domain(counts).items()
        accuracy = {domain: by_head["global"] for domain, by_head in heads if "global" in by_head}
        return accuracy, confusion_by_domain(counts), phase.failures

    def check_evaluation(self, content: RecordDict) -> None:
        inference = self.algorithm.inference(self.settings)
        self._check_counted(self.algorithm.declared("evaluate", (TIME,)), inference, content)

    def _check_counted(self, declared: Iterable[Metric], inference: str, content: RecordDict) -> None:
        """Refuse counts beside other metrics than these, of more than the client has, or that can't be true."""
        check_records(content)
        settings, classes = self.settings, len(self.settings.class_names)
        segmentation = family(settings.data.name).segmentation
        pixels = math.prod(settings.shape[1:]) if segmentation else 1
        self.conversation.check_told(content, (*declared, *counted_metrics(classes)), "test", pixels)
        check_counts(content.metric_records["metrics"], classes, segmentation, inference)

    def measured(self, counts: Mapping[str, EvaluationCounts]) -> dict[str, Any]:
        return {
            "accuracy": accuracy_by_domain(counts),
            "confusion": confusion_by_domain(counts),
            "label_free": label_free_by_domain(counts),
        }

    def headline(self, line: Mapping[str, Any]) -> dict[str, float]:
        inference = self.algorithm.inference(self.settings)
        return {domain: decisive(heads, inference) for domain, heads in line["accuracy"].items()}

    def after_training(self, server_round: int, arrays: ArrayRecord) -> ArrayRecord:
        """Let the clients evaluate the model itself."""
        return arrays

    def state(self) -> dict[str, Tensor]:
        """Name nothing: what the algorithm adds is in the model, or in its own state."""
        return {}

    def round_done(self, line: Mapping[str, Any]) -> None:
        """Do nothing more."""

    def finish(self, arrays: ArrayRecord) -> None:
        """Keep what the strategy gives, personalise where that is asked for, and ask for examples to show."""
        self.run.keep_closing(self._strategy.closing(self.settings.rounds, arrays))
        if self.algorithm.personalises_in(self.settings):
            self._personalise(arrays)
        before = self.run.pretrained()
        if before is not None:
            illustrate(self.conversation, self.run, self.source, before, self._as_evaluated(arrays), self.network)

    def summary(self, lines: list[dict[str, Any]], wall_seconds: float) -> dict[str, Any]:
        inference = self.algorithm.inference(self.settings)
        newcomers = newcomers_of(lines, inference)
        summary = summarise(self.settings, inference, adaptation_metric(self.settings), lines, wall_seconds)
        return summary | ({"newcomers": newcomers} if newcomers else {})

    def _personalise(self, arrays: ArrayRecord) -> None:
        """Write down how good the clients' own copies are."""
        rounds = self.settings.rounds
        config = self.conversation.config(rounds)
        messages = self.conversation.messages(f"train.{PERSONALISE}", {"model": arrays}, config)
        declared = self.algorithm.declared(PERSONALISE, (TIME,))
        check = partial(self._check_counted, declared, self.algorithm.inference(self.settings))
        phase = self.conversation.ask("personalising", messages, check)
        failed = self.conversation.unwritten()
        line = {"round": rounds, "phase": PERSONALISE, **self.measured(phase.counts), **account(phase, before=failed)}
        before = self.run.metrics()[-1]["accuracy"]
        own = line["accuracy"]
        line["accuracy"] = {domain: before.get(domain, {}) | own.get(domain, {}) for domain in {**before, **own}}
        self.run.write_down(line)
        reached = ", ".join(f"{domain} {value:.1f} %" for domain, value in self.headline(line).items())
        self.conversation.progress.note(f"personalised: {reached}")

    def _as_evaluated(self, arrays: ArrayRecord) -> ArrayRecord:
        """The final model as the strategy sends it to who predicts."""
        config = self.conversation.config(self.settings.rounds)
        one = as_grid(Cohort({0: ""}))
        (message,) = self._strategy.configure_evaluate(self.settings.rounds, arrays, config, one)
        return message.content.array_records["model"]


def check_counts(counts: Mapping[str, Any], classes: int, segmentation: bool = False, inference: str = "mean") -> None:
    """Refuse evaluation counts that can't be true; other metrics among them are left alone.

    Parameters
    ----------
    counts
        As they came.
    classes
        C of the run.
    segmentation
        Whether every head that has a number of right pixels has confusion counts too; else none has.
    inference
        Which head counts, see `adaptation.heads`.

    Raises
    ------
    BadReply
        Naming the count.
    """
    declared = counted_metrics(classes)
    check_metrics({metric.key: counts[metric.key] for metric in declared if metric.key in counts}, declared)
    examples = counts[NUM_EXAMPLES]
    counted = [head for head in HEADS if f"correct-{head}" in counts]
    for head in counted:
        if counts[f"correct-{head}"] > examples:
            raise BadReply(f"correct-{head} is {counts[f'correct-{head}']} of {examples} examples")
    if counted and not {"global", "personal"} & set(counted):
        raise BadReply(f"correct-{counted[0]} comes without correct-global")
    with_confusion = [head for head in HEADS if f"{CONFUSION}-{head}" in counts]
    if with_confusion != (counted if segmentation else []):
        raise BadReply(f"confusion counts come for the heads {with_confusion}, right predictions for {counted}")
    if CONFUSION in counts and not counted:
        raise BadReply(f"{CONFUSION} counts come without right predictions")
    heads = {f"{CONFUSION}-{head}": head for head in with_confusion}
    if CONFUSION in counts:
        heads[CONFUSION] = decisive({head: head for head in counted}, inference)
    for key, head in heads.items():
        confusion, correct = counts[key], counts[f"correct-{head}"]
        total, diagonal = sum(confusion), sum(confusion[:: classes + 1])
        if (total, diagonal) != (examples, correct):
            raise BadReply(
                f"{key}: the counts add up to {total} of {examples} examples, on the diagonal to {diagonal} of "
                f"correct-{head}={correct}"
            )


def new_network(settings: AdaptationSettings, device: torch.device) -> Network:
    """Make a freshly initialised network of the run's architecture."""
    seed = seed_for(settings.seed, "network")
    precision = getattr(torch, settings.network.precision)
    return build(settings.network.name, len(settings.class_names), settings.shape, seed, precision).to(device)


def adaptation_metric(settings: RunSettings) -> str:
    """Name what a run of domain adaptation measures: `MEAN_IOU` where labels are maps, else `ACCURACY`."""
    return MEAN_IOU if family(settings.data.name).segmentation else ACCURACY


def _check_network(settings: AdaptationSettings) -> None:
    """Refuse a network that doesn't take the data's inputs or doesn't give its kind of labels; computes nothing."""
    name = settings.network.name
    try:
        NETWORKS[name]
    except UnknownName as error:
        raise SettingsError(f"network.name={name}: {error}") from None
    try:
        with torch.device("meta"):
            network = build(name, len(settings.class_names), settings.shape, seed=0).eval()
            features = network.feature_extractor(torch.zeros(2, *settings.shape))
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(
            f"network.name={name}: doesn't take inputs of {settings.data.input_shape} ({reason})"
        ) from None
    if (features.ndim > 2) != family(settings.data.name).segmentation:
        gives, needs = ("a class a pixel", "one class an input")[:: 1 if features.ndim > 2 else -1]
        raise SettingsError(f"network.name={name}: gives {gives}, but data.name={settings.data.name} has {needs}")


def _check_inputs(settings: AdaptationSettings) -> None:
    inputs, data = settings.inputs, family(settings.data.name)
    if inputs.scenery and data.kind != "digits":
        raise SettingsError(
            f"inputs.scenery=True: data.name={settings.data.name} knows none, digits alone do; set inputs.scenery=false"
        )
    if inputs.scenery and not inputs.randomise:
        raise SettingsError(
            "inputs.scenery=True: it is a part of the randomisation; set inputs.randomise=true, or "
            "inputs.scenery=false too"
        )


def _check_privacy(settings: AdaptationSettings) -> None:
    """Refuse noise where nothing of what is uploaded would be protected by it."""
    own = settings.privacy
    if (settings.private or own.mixture_floor) and not algorithm(settings.strategy).private:
        given = f"privacy.mixture-floor={own.mixture_floor}"
        if settings.private:
            given = f"privacy.noise={own.noise:g}, privacy.mixture-noise={own.mixture_noise:g}"
        able = " or ".join(each.name for each in algorithms("adaptation") if each.private)
        raise SettingsError(f"{given}: of what strategy={settings.strategy} uploads nothing is protected; use {able}")


def _check_late(settings: AdaptationSettings) -> None:
    """Refuse clients that join late and don't fit the others, or the rounds."""
    late, targets, given = set(settings.late_domains), set(settings.target_domains), settings.simulation
    if not late:
        return
    if strangers := sorted(late - targets):
        raise DataError(
            f"simulation.late={given.late}: {', '.join(strangers)} is not among data.targets={settings.data.targets}"
        )
    if not targets - late:
        raise DataError(f"simulation.late={given.late}: no target is left that is there from the start")
    if given.late_round > settings.rounds:
        raise SettingsError(
            f"simulation.late-round={given.late_round}: this run has rounds={settings.rounds}; take an earlier one, "
            "or more rounds"
        )
