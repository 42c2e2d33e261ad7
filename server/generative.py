"""Serves the generative workloads: where the model starts, its moving average, held-out losses, samples.

`Results` is what a run brings forth however it is trained; `GenerativeRun` is a federation's side of it, and
`server.pooled` trains the same model without one.
"""

import json
from collections.abc import Mapping
from typing import Any, cast

import torch
from flwr.app import ArrayRecord, RecordDict
from torch import Tensor

from fmtda.adaptation.scores import EvaluationCounts
from fmtda.domains.examples import DataError
from fmtda.generative.example_kind import Judge
from fmtda.generative.registry import MODELS, MissingExtraError, build
from fmtda.generative.sampling import draw, steps_to_draw
from fmtda.protocol.client_names import domain_of
from fmtda.protocol.metrics import NUM_EXAMPLES, TIME, count
from fmtda.protocol.records import BadReply, check_records, from_record, to_record
from fmtda.protocol.runtime import choose_device
from fmtda.protocol.seeds import generator_for, seed_for
from fmtda.protocol.settings import GenerativeSettings, RunSettings
from fmtda.protocol.tables import SettingsError
from fmtda.server.checkpoints import Checkpoint
from fmtda.server.conversation import Conversation
from fmtda.server.metrics import mean
from fmtda.server.pooled_data import pooled_examples
from fmtda.server.progress import Progress
from fmtda.server.run_directory import RunDirectory, writing
from fmtda.server.workload import Workload
from fmtda.strategies.algorithm import FederatedStrategy
from fmtda.strategies.registry import algorithm

AVERAGE = "average."
"""How the moving average's arrays are named in a checkpoint's state."""


class Results:
    """Holds the model of a run, the moving average of its weights, and what is drawn from that.

    Attributes
    ----------
    settings : GenerativeSettings
    model : GenerativeModel
        On the server's device, with the initial weights until those of the average are loaded.
    average : dict of str to Tensor
        On the CPU; empty before the first round.
    quality : dict or None
        What `measure` found; None before it, and where it can't find anything.
    judge : callable or None
        See `ExampleKind.judge`; None before it is needed, and where there can be none.
    """

    def __init__(self, settings: GenerativeSettings) -> None:
        self.settings = settings
        self.device = choose_device(settings.device)
        self.model = build(settings.workload, settings, seed_for(settings.seed, "network")).to(self.device)
        self.average: dict[str, Tensor] = {}
        self.quality: dict[str, Any] | None = None
        self.judge: Judge | None = None
        self._unjudged = not settings.samples.quality

    def take_in(self, server_round: int, weights: Mapping[str, Tensor]) -> None:
        """Move the average towards the weights after a round; the first time it becomes them.

        With decay d the weights of round r count in proportion to d^(R - r) after round R: the usual moving average
        without its bias towards the start (the correction is Adam's).
        """
        decay = self.settings.training.ema_decay
        share = (1 - decay) / (1 - decay**server_round)
        self.average = {
            name: torch.lerp(self.average[name], value, share) if self.average else value.clone()
            for name, value in weights.items()
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint.

        Raises
        ------
        SettingsError
            If it is of another workload, or its arrays are not those of this run's model.
        """
        checkpoint.refuse_other(self.settings.workload)
        self.average = {
            name.removeprefix(AVERAGE): value for name, value in checkpoint.state.items() if name.startswith(AVERAGE)
        }
        expected = {name: tuple(value.shape) for name, value in self.model.state_dict().items()}
        for weights in (checkpoint.model, self.average):
            found = {name: tuple(value.shape) for name, value in weights.items()}
            if found != expected:
                different = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
                raise SettingsError(
                    f"the checkpoint of round {checkpoint.round} holds no {self.settings.workload} of these settings: "
                    f"{different[0]} is {found.get(different[0])}, expected {expected.get(different[0])}"
                )

    def state(self) -> dict[str, Tensor]:
        """Name the average, as a checkpoint keeps it."""
        return {f"{AVERAGE}{name}": value for name, value in self.average.items()}

    def draw(self, count: int, generator: torch.Generator, stage: str, progress: Progress) -> Tensor:
        """Draw examples from the average."""
        self.model.load_state_dict(self.average)
        progress.stage(stage, steps_to_draw(self.model, count))
        return draw(self.model, count, generator, progress.advance)

    def round_done(self, server_round: int, directory: RunDirectory, progress: Progress) -> None:
        """Draw a sample for people to look at, where the round has one, and judge it as `measure` does at the end.

        The figures, of `samples.count` samples, lie beside the sample as JSON.
        """
        settings = self.settings
        every = settings.samples.every or settings.rounds
        if server_round % every and server_round != settings.rounds:
            return
        generator = generator_for(settings.seed, "server", server_round, "samples")
        samples = self.draw(settings.samples.count, generator, f"round {server_round}: sampling", progress)
        kind = MODELS[settings.workload].kind
        figures = self._judged(samples, progress) or {}
        numbers = {key: value for key, value in figures.items() if isinstance(value, int | float)}
        with writing(f"the samples of round {server_round}", directory.samples):
            directory.samples.mkdir(exist_ok=True)
            kind.write(samples, directory.samples / f"round-{server_round:06d}{kind.suffix}", settings)
            directory.trackers.show("samples", kind.picture(samples, settings), server_round)
            if numbers:
                (directory.samples / f"round-{server_round:06d}.json").write_text(json.dumps(numbers) + "\n")
                curves = {f"quality/{key}": float(value) for key, value in numbers.items()}
                directory.trackers.write(curves, server_round)

    def measure(self, progress: Progress) -> None:
        """Draw `samples.quality` examples and judge them against the clients' real ones."""
        if self._unjudged:
            return
        generator = generator_for(self.settings.seed, "server", self.settings.rounds, "quality")
        samples = self.draw(self.settings.samples.quality, generator, "sampling to measure quality", progress)
        self.quality = self._judged(samples, progress)

    def _judged(self, samples: Tensor, progress: Progress) -> dict[str, Any] | None:
        """Figures of samples against the clients' real examples, where this machine has these too.

        A simulation does; the server of a real federation does not, and leaves it with a note.
        """
        if self._unjudged:
            return None
        settings = self.settings
        try:
            if self.judge is None:
                self._unjudged = True  # until it is clear that there can be a judge
                real, labels = pooled_examples(settings)
                seed = seed_for(settings.seed, "judge of quality")
                self.judge = MODELS[settings.workload].kind.judge(real, labels, settings, seed)
                self._unjudged = False
            return self.judge(samples)
        except (DataError, ValueError) as error:
            progress.note(f"quality is not measured: {error}")
            return None

    def summary(self, lines: list[dict[str, Any]], wall_seconds: float) -> dict[str, Any]:
        """Make the contents of summary.json out of all lines of metrics.jsonl."""
        settings, loss = self.settings, lines[-1]["loss"]
        whole = [line for line in lines if line.get("evaluated", True)]  # what a round costs, evaluation included
        clients = [client for line in whole for client in line["clients"].values()]
        return {
            "workload": settings.workload,
            "strategy": settings.strategy,
            "data": settings.data.name,
            "targets": list(settings.target_domains),
            "partition": settings.data.partition,
            "seed": settings.seed,
            "rounds": settings.rounds,
            "clients": settings.clients,
            "gradient_steps": settings.gradient_steps,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "loss": loss,
            "average_loss": mean(loss.values()),
            "quality": self.quality,
            "uplink_bytes_per_client_round": mean(client["up"] for client in clients),
            "downlink_bytes_per_client_round": mean(client["down"] for client in clients),
            "client_seconds_per_round": mean(client["seconds"] for client in clients),
            "server_seconds_per_round": mean(line["server_seconds"] for line in lines),
            "wall_seconds": wall_seconds,
            "failures": sum(len(line["failures"]) for line in lines),
        }


class GenerativeRun(Workload):
    """Serves a federation that trains a generative model."""

    kind = "generative"

    def __init__(self, settings: RunSettings, conversation: Conversation, run: RunDirectory) -> None:
        super().__init__(settings, conversation, run)
        self.results = Results(cast(GenerativeSettings, settings))

    @classmethod
    def check(cls, settings: GenerativeSettings) -> None:
        """Refuse a model that is not installed, can't be built so, or doesn't learn the data's kind of examples."""
        algorithm(settings.strategy).check(settings)
        try:
            MODELS[settings.workload].kind.check(settings)
            build(settings.workload, settings, seed=0)
        except MissingExtraError as error:
            raise SettingsError(f"workload={settings.workload}: {error}") from None
        except ValueError as error:  # a model names its settings as its own attributes
            text = str(error)
            for name, field in type(settings.model).model_fields.items():
                text = text.replace(f"{name}=", f"{settings.workload}.{field.alias}=")
            raise SettingsError(text) from None

    def strategy(self) -> FederatedStrategy:
        settings = self.results.settings
        return algorithm(settings.strategy).server(settings, self.results.model)

    def begin(self) -> ArrayRecord:
        """Give the initial weights, by the seed."""
        return to_record(self.results.model.state_dict())

    def check_evaluation(self, content: RecordDict) -> None:
        check_records(content)
        metrics, common = content.metric_records["metrics"], (count(NUM_EXAMPLES, required=True), TIME)
        declared = algorithm(self.results.settings.strategy).declared("evaluate", common)
        self.conversation.check_told(content, declared, "test")
        if metrics[NUM_EXAMPLES] and "loss" not in metrics:
            raise BadReply("loss is missing")

    def measured(self, counts: Mapping[str, EvaluationCounts]) -> dict[str, Any]:
        return {"loss": loss_by_domain(counts)}

    def headline(self, line: Mapping[str, Any]) -> dict[str, float]:
        return line["loss"]

    def after_training(self, server_round: int, arrays: ArrayRecord) -> ArrayRecord:
        """Take the model into the moving average, which the clients evaluate."""
        self.results.take_in(server_round, from_record(arrays))
        return to_record(self.results.average)

    def state(self) -> dict[str, Tensor]:
        return self.results.state()

    def restore(self, checkpoint: Checkpoint) -> None:
        self.results.restore(checkpoint)

    def round_done(self, line: Mapping[str, Any]) -> None:
        """Draw a sample where the round has one."""
        self.results.round_done(line["round"], self.run, self.conversation.progress)

    def finish(self, arrays: ArrayRecord) -> None:
        """Measure the quality of samples."""
        self.results.measure(self.conversation.progress)

    def summary(self, lines: list[dict[str, Any]], wall_seconds: float) -> dict[str, Any]:
        return self.results.summary(lines, wall_seconds)


def loss_by_domain(counts: Mapping[str, EvaluationCounts]) -> dict[str, float]:
    """Compute the mean over all held-out examples of a domain's clients."""
    by_domain: dict[str, float] = {}
    for domain in dict.fromkeys(domain_of(name) for name in counts):
        clients = [client for name, client in counts.items() if domain_of(name) == domain and client["num-examples"]]
        examples = sum(client["num-examples"] for client in clients)
        if examples:
            by_domain[domain] = sum(client["num-examples"] * client["loss"] for client in clients) / examples
    return by_domain
