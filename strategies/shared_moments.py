"""Averages clients that share one Adam: its moments are averaged as the model is, and sent along with it.

An Adam that starts afresh every round divides each client's gradient by what that client alone has just seen of it.
Where the clients' data differ, the mean of such steps points elsewhere than the mean gradient, at any step size.
With one second moment for all it doesn't, and the first steps of a round are no larger than the others. Averaging the
second moment: Chen et al. 2020, "Toward communication efficient adaptive gradient method".
"""

from collections.abc import Iterable, Mapping

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor, nn

from fmtda.protocol.moments import initial_moments, parted
from fmtda.protocol.records import from_record, to_record
from fmtda.strategies.flower import FlowerStrategy


class SharedMoments(FlowerStrategy):
    """Averages the moments among the arrays, three times as many in all.

    Parameters
    ----------
    flower
        A strategy that does nothing but average.
    model
        Whose parameters the clients train.

    Attributes
    ----------
    moments : dict of str to Tensor
        After the last round, as `protocol.moments` names them; zeros before the first.
    """

    def __init__(self, flower: Strategy, model: nn.Module) -> None:
        super().__init__(flower)
        self.moments: dict[str, Tensor] = initial_moments(model)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the moments along with the model."""
        both = ArrayRecord({**arrays, **to_record(self.moments)})
        return super().configure_train(server_round, both, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average both, keep the moments and return the model. Without any replies, nothing changes."""
        both, metrics = super().aggregate_train(server_round, replies)
        if both is None:
            return None, None
        model, self.moments = parted(from_record(both))
        return to_record(model), metrics

    def state(self) -> dict[str, Tensor]:
        return self.moments

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        _, self.moments = parted(state)
