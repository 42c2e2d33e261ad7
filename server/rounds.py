"""The round driver: what every strategy needs, Flower's own included, stands here once.

A strategy's messages go out, the replies are checked, named and sorted, the strategy aggregates them, the clients
evaluate, and the round is written down. ``flwr``'s ``Strategy.start`` knows only round 1 and keeps the order of
arrival; this driver begins at any round and gives every strategy the same order.
"""

import copy
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fmtda.protocol.moments import is_second_moment
from fmtda.protocol.records import (
    BadReply,
    check_arrays,
    check_records,
    config_record,
    from_record,
    layout_of,
    payload_bytes,
    sender,
)
from fmtda.protocol.settings import RunSettings
from fmtda.server import checkpoints, uploads
from fmtda.server.exchange import NOT_TAKEN, Answers, Exchange
from fmtda.server.newcomers import Newcomers, told
from fmtda.server.progress import Progress
from fmtda.server.roster import Cohort, Roster, last_line
from fmtda.server.run_directory import RunDirectory
from fmtda.server.trackers import Trackers
from fmtda.server.workload import Workload
from fmtda.server.writing import writing
from fmtda.strategies.memory import remembered

Check = Callable[[RecordDict], None]


class RunStopped(RuntimeError):
    """A run that can't go on; the message says why, and what was reached stays in the run directory."""


class NoClientAnswered(RunStopped):
    """A round in which not one reply could be used; the message gives the first reason."""


@dataclass
class Phase:
    """One exchange with the clients, looked through: usable replies by name, and what went wrong."""

    replies: dict[str, Message] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    down: dict[str, int] = field(default_factory=dict)
    up: dict[str, int] = field(default_factory=dict)

    def metrics(self, name: str) -> dict[str, Any]:
        """The metrics in a client's reply, empty without one."""
        return dict(self.replies[name].content["metrics"]) if name in self.replies else {}


@dataclass
class Federation:
    """A run's fixed parts, and the steps of a round over them."""

    grid: Grid
    roster: Roster
    settings: RunSettings
    run: RunDirectory
    progress: Progress
    workload: Workload
    first_round: int = 0
    """What comes first: 0, before the rounds, in a new run, else the round after the last whole one."""
    tracker: Trackers | None = None

    def __post_init__(self) -> None:
        self.exchange = Exchange(self.grid, self.progress, self.settings.in_flight)
        self.newcomers = Newcomers(self.settings)

    def write_down(self, line: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl and to the curves.

        Raises
        ------
        WriteError
            If the system refuses; earlier lines and checkpoints stay as they are.
        """
        with writing(f"the metrics of round {line['round']}", self.run.path):
            self.run.append_metrics(line)
            if self.tracker is None:
                self.tracker = Trackers(self.settings, self.run.path, self.first_round)
            self.tracker.log(line)

    def train(self, strategy: Strategy, arrays: ArrayRecord) -> ArrayRecord:
        """Run the rounds from the first on that is still to be played; returns the global model after the last.

        Raises
        ------
        NoClientAnswered
            If a round gets no usable reply.
        RunStopped
            If the strategy's new model is not finite.
        WriteError
            If a part of the run can't be written; the last good checkpoint stays.
        """
        for server_round in range(max(1, self.first_round), self.settings.rounds + 1):
            for problem in self.roster.call(self.exchange, self.grid, self.settings, self.settings.join_timeout):
                self.progress.note(f"round {server_round}: {problem}")
            self.hold_back(server_round)
            if not self.roster.names:
                raise NoClientAnswered(f"round {server_round}: no client is there any more")
            arriving = self.newcomers.arriving(self.roster.names.values(), strategy)
            cohort = self.roster.cohort(self.settings, server_round, arriving)
            arrays, training, server_seconds, metrics = self._training_phase(
                strategy, arrays, server_round, cohort, arriving
            )
            news = self.newcomers.settle(server_round, training.replies)
            to_evaluate = self.workload.after_training(server_round, arrays)
            for name in sorted(news.keys() & arriving):
                self.progress.note(f"round {server_round}: {told(name, news[name])}")
            evaluated = server_round % self.settings.evaluate_every == 0 or server_round == self.settings.rounds
            evaluation = self._evaluation_phase(strategy, to_evaluate, server_round) if evaluated else Phase()
            line = self.line(server_round, "round", evaluation, training)
            line |= {"evaluated": evaluated, "train": metrics, "server_seconds": server_seconds}
            line |= {"newcomers": news} if news else {}
            self.write_down(line)
            self.workload.round_done(self, line)
            state = {**self.workload.state(), **remembered(strategy), **self.newcomers.state()}
            checkpoints.write(
                self.run.checkpoints, server_round, from_record(arrays), state, workload=self.settings.workload
            )
            reached = self.workload.headline(line) if evaluated else None
            self.progress.round_done(server_round, self.settings.rounds, reached)
        return arrays

    def hold_back(self, server_round: int) -> None:
        """Leave those out of a round who are to join later."""
        self.roster.hold_back(self.newcomers.too_early(self.roster.names.values(), server_round))

    def _training_phase(
        self, strategy: Strategy, arrays: ArrayRecord, server_round: int, cohort: Cohort, arriving: Collection[str]
    ) -> tuple[ArrayRecord, Phase, float, dict[str, float]]:
        began = time.perf_counter()
        config = config_record(self.settings, server_round)
        messages = list(strategy.configure_train(server_round, arrays, config, cohort))
        server_seconds = time.perf_counter() - began
        messages = self.newcomers.training_messages(messages, self.roster.names, arriving)
        phase = self.ask(f"round {server_round}: clients train", messages, _checker(strategy, messages, arriving))
        trained = {name: reply for name, reply in phase.replies.items() if name not in arriving}
        if messages and not trained:
            raise NoClientAnswered(
                f"round {server_round}: no client's training could be used: {first_reason(phase.failures)}"
            )
        replies = list(trained.values())
        if hasattr(strategy, "check_reply"):  # what the clients upload is their own part, no whole model
            uploads.keep(self.run.uploads, trained)
        else:
            replies = _with_common_metrics(replies)
        self.progress.stage(f"round {server_round}: server optimises", 1)
        if hasattr(strategy, "client_weights"):
            strategy.client_weights = self.newcomers.weights(server_round)
        began = time.perf_counter()
        new_arrays, metrics = strategy.aggregate_train(server_round, replies)
        server_seconds += time.perf_counter() - began
        self.progress.advance(1)
        return _usable(new_arrays or arrays, arrays, server_round), phase, server_seconds, dict(metrics or {})

    def _evaluation_phase(self, strategy: Strategy, arrays: ArrayRecord, server_round: int) -> Phase:
        """Every client evaluates, whoever trained, so that a domain's accuracy means the same in every round."""
        config = config_record(self.settings, server_round)
        messages = strategy.configure_evaluate(server_round, arrays, config, Cohort(list(self.roster.names)))
        messages = self.newcomers.evaluation_messages(messages, self.roster.names)
        return self.ask(f"round {server_round}: clients evaluate", messages, self.workload.check_evaluation)

    def ask(self, stage: str, messages: Iterable[Message], check: Check) -> Phase:
        """Send, receive, and look through what came back."""
        messages = list(messages)
        if not messages:
            return Phase()
        answers = self.exchange.send(messages, self.settings.timeout, stage)
        phase = admit(answers, self.roster.names, check, self.settings.timeout)
        for failure in phase.failures:
            self.progress.note(f"{stage}: {failure}")
        return phase

    def line(self, server_round: int, phase: str, evaluation: Phase, training: Phase | None = None) -> dict[str, Any]:
        """One line of metrics.jsonl. Train and evaluation bytes and seconds of a client are added up."""
        training = training or Phase()
        counts = {name: evaluation.metrics(name) for name in evaluation.replies}
        clients = {}
        for name in sorted({*training.down, *evaluation.down}):
            trained, evaluated = training.metrics(name), evaluation.metrics(name)
            clients[name] = {
                "up": training.up.get(name, 0) + evaluation.up.get(name, 0),
                "up_training": training.up.get(name, 0),
                "down": training.down.get(name, 0) + evaluation.down.get(name, 0),
                "seconds": trained.pop("seconds", 0.0) + evaluated.pop("seconds", 0.0),
                "train": trained,
                "evaluate": {key: value for key, value in evaluated.items() if not key.startswith("confusion")},
            }
        return {
            "round": server_round,
            "phase": phase,
            **self.workload.measured(counts),
            "clients": clients,
            "failures": training.failures + evaluation.failures,
        }


def admit(answers: Answers, names: dict[int, str], check: Check, timeout: float) -> Phase:
    """Check replies and sort them by the client's name; a bad one is dropped and named.

    Parameters
    ----------
    answers
        What came back.
    names
        The client's name by node id, in the order of the names.
    check
        Raises `BadReply` on content that must not be used.
    timeout
        Seconds that were waited.
    """
    phase = Phase(down={names[node_id]: size for node_id, size in answers.down.items()})
    by_node = {reply.metadata.src_node_id: reply for reply in answers.replies}
    for node_id, name in names.items():
        if node_id in answers.unanswered:
            phase.failures.append(f"{name}: no answer within {timeout:g} s")
        if node_id in answers.refused:
            phase.failures.append(f"{name}: not asked, {NOT_TAKEN}")
        if node_id not in by_node:
            continue
        reply = by_node[node_id]
        if reply.has_error():
            phase.failures.append(f"{name}: {last_line(reply.error.reason)}")
            continue
        phase.up[name] = payload_bytes(reply.content)
        try:
            if sender(reply.content) != name:
                raise BadReply(f"calls itself {sender(reply.content)} now")
            check(reply.content)
        except BadReply as error:
            phase.failures.append(f"{name}: dropped, {error}")
            continue
        phase.replies[name] = reply
    return phase


def _checker(strategy: Strategy, messages: list[Message], arriving: Collection[str] = ()) -> Check:
    """The strategy's own check of an upload; without one, the upload must look like the model that was sent."""
    if arriving:
        return lambda content: (strategy.check_join if sender(content) in arriving else strategy.check_reply)(content)
    if hasattr(strategy, "check_reply"):
        return strategy.check_reply
    layout = layout_of(messages[0].content["model"]) if messages else {}

    def looks_like_the_model(content: RecordDict) -> None:
        check_records(content, "model")
        check_arrays(content["model"], layout)
        for name in filter(is_second_moment, layout):
            if (content["model"][name].numpy() < 0).any():
                raise BadReply(f"{name} has negative values: the second moment of an Adam has none")
        examples = content["metrics"].get("num-examples")
        if not isinstance(examples, int) or examples < 1:
            raise BadReply(f"num-examples is {examples}, expected a whole number from 1: the average's weight")
        for name, value in content["metrics"].items():
            if isinstance(value, list):
                raise BadReply(f"metric {name} holds {len(value)} numbers, expected one")

    return looks_like_the_model


def _with_common_metrics(replies: list[Message]) -> list[Message]:
    """The replies without metrics that not all have: Flower's average of them would end the run."""
    common = set.intersection(*(set(reply.content["metrics"]) for reply in replies)) if replies else set()
    cut = []
    for reply in replies:
        metrics = {name: value for name, value in reply.content["metrics"].items() if name in common}
        cut.append(copy.copy(reply))  # the line of metrics.jsonl keeps what the client said
        cut[-1].content = RecordDict({**reply.content, "metrics": MetricRecord(metrics)})
    return cut


def _usable(new: ArrayRecord, model: ArrayRecord, server_round: int) -> ArrayRecord:
    """The new model in the types of the one that was sent: Flower's FedAdam answers in float64.

    Raises
    ------
    RunStopped
        If a value is not finite.
    """
    types = {name: model[name].dtype if name in model else array.dtype for name, array in new.items()}
    with np.errstate(over="ignore"):
        values = {name: array.numpy().astype(types[name], copy=False) for name, array in new.items()}
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise RunStopped(f"round {server_round}: the new model is not finite ({name}); take smaller steps")
    if all(array.dtype == types[name] for name, array in new.items()):
        return new
    return ArrayRecord({name: Array(value) for name, value in values.items()})


def first_reason(failures: list[str]) -> str:
    """The first failure of a phase without replies."""
    return failures[0] if failures else "no client was asked"
