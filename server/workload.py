"""Says what the round loop asks of a workload: where a run begins, what its rounds measure, what the server keeps.

`server.adaptation` and `server.generative` are the two kinds there are; neither they nor this know the loop.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from flwr.app import ArrayRecord, RecordDict
from torch import Tensor

from fmtda.adaptation.scores import EvaluationCounts
from fmtda.protocol.settings import RunSettings
from fmtda.server.checkpoints import Checkpoint
from fmtda.server.conversation import Conversation
from fmtda.server.run_directory import RunDirectory
from fmtda.strategies.algorithm import FederatedStrategy


class RunStopped(RuntimeError):
    """Raised for a run that can't go on; the message says why, and what was reached stays in the run directory."""


class NoClientAnswered(RunStopped):
    """Raised for a phase in which not one reply could be used; the message gives the first reason."""


class Workload(ABC):
    """Does for one run what differs between kinds of workloads.

    Parameters
    ----------
    settings
        The run's.
    conversation
        With the clients, who are there.
    run
        The run directory.

    Attributes
    ----------
    kind : str
        Of the settings that it serves.
    """

    kind: ClassVar[str]

    def __init__(self, settings: RunSettings, conversation: Conversation, run: RunDirectory) -> None:
        self.conversation, self.run = conversation, run

    @classmethod
    @abstractmethod
    def check(cls, settings: Any) -> None:
        """Refuse settings that don't go together, before anything starts.

        Raises
        ------
        SettingsError, DataError
        """

    @abstractmethod
    def strategy(self) -> FederatedStrategy:
        """Make the server's side of the run's algorithm; called once, before anything else."""

    @abstractmethod
    def begin(self) -> ArrayRecord:
        """Make the global model before the first round."""

    @abstractmethod
    def check_evaluation(self, content: RecordDict) -> None:
        """Refuse an evaluation that can't be true, by raising `protocol.records.BadReply`."""

    @abstractmethod
    def measured(self, counts: Mapping[str, EvaluationCounts]) -> dict[str, Any]:
        """Add up the clients' evaluations, given by name: fields of a line of metrics.jsonl."""

    @abstractmethod
    def headline(self, line: Mapping[str, Any]) -> dict[str, float]:
        """Say what a person is told of a line, by domain."""

    @abstractmethod
    def after_training(self, server_round: int, arrays: ArrayRecord) -> ArrayRecord:
        """Take in the new global model; returns what the clients evaluate."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Name what lives from round to round beside the global model and the strategy's own."""

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint: refuse one of another workload or model, and take back what `state` gave.

        Raises
        ------
        SettingsError
            If the checkpoint is not this run's.
        """
        checkpoint.refuse_other(self.conversation.settings.workload)

    @abstractmethod
    def round_done(self, line: Mapping[str, Any]) -> None:
        """Do what follows a round that was written down, before its checkpoint."""

    @abstractmethod
    def finish(self, arrays: ArrayRecord) -> None:
        """Do what follows the last round."""

    @abstractmethod
    def summary(self, lines: list[dict[str, Any]], wall_seconds: float) -> dict[str, Any]:
        """Make the contents of summary.json out of all lines of metrics.jsonl."""
