"""Plays the rounds, for every algorithm and every workload, Flower's own strategies included.

A strategy's messages go out, the replies are checked, named and sorted, the strategy aggregates them, the clients
evaluate, and the round is written down. ``flwr``'s ``Strategy.start`` knows only round 1 and keeps the order of
arrival; this loop begins at any round and gives every strategy the same order.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from fmtda.protocol.records import check_records, from_record, sender
from fmtda.server import checkpoints
from fmtda.server.conversation import Conversation, Phase, account, as_grid, first_reason
from fmtda.server.run_directory import RunDirectory
from fmtda.server.workload import NoClientAnswered, RunStopped, Workload
from fmtda.strategies.algorithm import FederatedStrategy
from fmtda.strategies.averages import capped
from fmtda.strategies.registry import algorithm


@dataclass
class Loop:
    """Holds a run's fixed parts, and makes the steps of a round over them."""

    conversation: Conversation
    run: RunDirectory
    workload: Workload
    strategy: FederatedStrategy
    _arriving: Collection[str] = ()

    def play(self, first_round: int, arrays: ArrayRecord) -> ArrayRecord:
        """Play the rounds from the first on that is still to be played; returns the global model after the last.

        Raises
        ------
        NoClientAnswered
            If a round gets no usable reply.
        RunStopped
            If the strategy's new model is not finite.
        WriteError
            If a part of the run can't be written; the last good checkpoint stays.
        """
        conversation, strategy, workload = self.conversation, self.strategy, self.workload
        settings, progress = conversation.settings, conversation.progress
        for server_round in range(max(1, first_round), settings.rounds + 1):
            for problem in conversation.introductions(settings.join_timeout):
                progress.note(f"round {server_round}: {problem}")
            conversation.hold_back(server_round)
            if not conversation.names:
                raise NoClientAnswered(f"round {server_round}: no client is there any more")
            arrays, training, facts = self._train(server_round, arrays)
            told, notes = strategy.told()
            to_evaluate = workload.after_training(server_round, arrays)
            for note in notes:
                progress.note(f"round {server_round}: {note}")
            evaluated = server_round % settings.evaluate_every == 0 or server_round == settings.rounds
            evaluation = self._evaluate(server_round, to_evaluate) if evaluated else Phase()
            line = {
                "round": server_round,
                "phase": "round",
                **workload.measured(evaluation.counts),
                **account(evaluation, training, conversation.unwritten()),
                "evaluated": evaluated,
                **facts,
                **told,
            }
            self.run.write_down(line)
            workload.round_done(line)
            state = {**workload.state(), **strategy.state()}
            checkpoints.write(
                self.run.checkpoints, server_round, from_record(arrays), state, workload=settings.workload
            )
            reached = workload.headline(line) if evaluated else None
            progress.round_done(server_round, settings.rounds, reached)
        return arrays

    def _train(self, server_round: int, arrays: ArrayRecord) -> tuple[ArrayRecord, Phase, dict[str, Any]]:
        """Let the round's clients train, and the strategy aggregate."""
        conversation, strategy = self.conversation, self.strategy
        arriving = strategy.arriving(list(conversation.names.values()))
        cohort = conversation.cohort(server_round, arriving)
        began = time.perf_counter()
        config = conversation.config(server_round)
        messages = list(strategy.configure_train(server_round, arrays, config, as_grid(cohort)))
        server_seconds = time.perf_counter() - began
        self._arriving = arriving
        phase = conversation.ask(f"round {server_round}: clients train", messages, self._check_training)
        self._keep_uploads(phase, arriving)
        if messages and not phase.replies.keys() - arriving:
            raise NoClientAnswered(
                f"round {server_round}: no client's training could be used: {first_reason(phase.failures)}"
            )
        conversation.progress.stage(f"round {server_round}: server optimises", 1)
        began = time.perf_counter()
        replies = capped(list(phase.replies.values()), conversation.settings.average_cap)
        new_arrays, metrics = strategy.aggregate_train(server_round, replies)
        server_seconds += time.perf_counter() - began
        conversation.progress.advance(1)
        facts = {"train": dict(metrics or {}), "server_seconds": server_seconds}
        return _usable(new_arrays or arrays, arrays, server_round), phase, facts

    def _check_training(self, content: RecordDict) -> None:
        """Refuse metrics that the algorithm's clients don't tell, more examples than there are, and a bad upload."""
        check_records(content, *content.array_records)
        asked = "join" if sender(content) in self._arriving else "train"
        its_algorithm = algorithm(self.conversation.settings.strategy)
        self.conversation.check_told(content, its_algorithm.declared(asked), "train")
        self.strategy.check_upload(content)

    def _keep_uploads(self, phase: Phase, arriving: Collection[str]) -> None:
        """Where uploads are the clients' own parts, keep those of who trained."""
        if self.strategy.keeps_uploads:
            self.run.keep_uploads({name: reply for name, reply in phase.replies.items() if name not in arriving})

    def _evaluate(self, server_round: int, arrays: ArrayRecord) -> Phase:
        """Let every client evaluate, whoever trained, so that a domain's figure means the same in every round."""
        conversation = self.conversation
        config = conversation.config(server_round)
        everybody = as_grid(conversation.everybody())
        messages = self.strategy.configure_evaluate(server_round, arrays, config, everybody)
        return conversation.ask(f"round {server_round}: clients evaluate", messages, self.workload.check_evaluation)


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
