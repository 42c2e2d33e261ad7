"""A run's metrics as curves and pictures: TensorBoard's event files in the run directory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor


class TensorBoard:
    """Writes each line of metrics.jsonl as scalars; the step is the round.

    Parameters
    ----------
    folder
        Where the event files go.
    first_round
        The first step that is written; what an interrupted run left from there on is hidden.
    """

    def __init__(self, folder: Path, first_round: int) -> None:
        # Imported here: it takes a second, which only the server of a run should pay.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(folder, purge_step=first_round)

    def log(self, line: dict[str, Any]) -> None:
        """Write one line of metrics.jsonl."""
        for name, value in scalars(line):
            self._writer.add_scalar(name, value, line["round"])
        self._writer.flush()

    def show(self, name: str, picture: Tensor, server_round: int) -> None:
        """Write a picture: uint8 (3, H, W)."""
        self._writer.add_image(name, picture, server_round)
        self._writer.flush()


def scalars(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a line by their names in every tracker: ``accuracy/svhn/mean``, ``server/discrepancy``."""
    for domain, by_head in line.get("accuracy", {}).items():
        for head, value in by_head.items():
            yield f"accuracy/{domain}/{head}", value
    for domain, by_name in line.get("label_free", {}).items():
        for name, value in by_name.items():
            yield f"{name}/{domain}", value
    for domain, value in line.get("loss", {}).items():
        yield f"loss/{domain}", value
    for name, value in line.get("train", {}).items():
        if isinstance(value, int | float):
            yield f"server/{name}", value
    clients = line["clients"].values()
    for name in ("up", "down", "seconds"):
        if clients:
            yield f"clients/mean-{name}", sum(client[name] for client in clients) / len(clients)
    yield "clients/failures", len(line["failures"])
