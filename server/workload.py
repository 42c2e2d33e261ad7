"""What the round driver asks of a workload: where a run begins, what its rounds measure, what else the server keeps.

`server.adaptation` and `server.generative` are the two there are.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from flwr.app import ArrayRecord, RecordDict
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from fmtda.server.checkpoints import Checkpoint

if TYPE_CHECKING:
    from fmtda.server.rounds import Federation

Counts = Mapping[str, Mapping[str, int | float | list[int]]]
"""The metrics of every client's evaluation by its name."""


class Workload(Protocol):
    """One run's side of what differs between workloads."""

    def strategy(self) -> Strategy:
        """The run's strategy; called once the clients are there, before anything else."""

    def begin(self, federation: "Federation") -> ArrayRecord:
        """The global model before the first round."""

    def check_evaluation(self, content: RecordDict) -> None:
        """Refuse an evaluation that can't be true, by raising `protocol.records.BadReply`."""

    def measured(self, counts: Counts) -> dict[str, Any]:
        """What the clients' evaluations add up to: fields of a line of metrics.jsonl."""

    def headline(self, line: Mapping[str, Any]) -> dict[str, float]:
        """What a person is told of a line, by domain."""

    def after_training(self, server_round: int, arrays: ArrayRecord) -> ArrayRecord:
        """Take in the new global model; returns what the clients evaluate."""

    def state(self) -> dict[str, Tensor]:
        """What lives from round to round beside the global model."""

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint: refuse one of another workload or model, and take back what `state` gave.

        Raises
        ------
        SettingsError
            If the checkpoint is not this run's.
        """

    def round_done(self, federation: "Federation", line: Mapping[str, Any]) -> None:
        """Called after a round was written down, before its checkpoint."""

    def finish(self, federation: "Federation", arrays: ArrayRecord) -> None:
        """What follows the last round."""

    def summary(self, lines: list[dict[str, Any]], wall_seconds: float) -> dict[str, Any]:
        """The contents of summary.json out of all lines of metrics.jsonl."""
