"""Finds out which of a run's domains pictures look like, by the mixtures that its clients fitted to their features.

Our choice: how many pictures decide.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fmtda.inference.adapted_model import AdaptedModel
from fmtda.inference.model_check import loading
from fmtda.inference.run_clients import adaptation_settings, differs_by_domain, named_clients
from fmtda.protocol.settings import SettingsError

LOOKED_AT = 64
"""Pictures of a set, evenly spread over it, that decide."""


@dataclass(frozen=True)
class Choice:
    """Says which model was chosen, and by what.

    Attributes
    ----------
    model : AdaptedModel
    scores : dict of float
        Of every client's mixture, best first; see `choose`. Empty where nothing had to be chosen.
    """

    model: AdaptedModel
    scores: dict[str, float]

    @property
    def account(self) -> str:
        """The choice in one line for people."""
        if not self.scores:
            return ""
        shown = ", ".join(f"{name} {score:.0f}" for name, score in list(self.scores.items())[:4])
        more = f" and {len(self.scores) - 4} more" if len(self.scores) > 4 else ""
        return f"{self.model.client} was chosen by the mixtures; mean log-likelihood in nats: {shown}{more}"


def spread(files: Sequence[Path]) -> list[Path]:
    """Take at most `LOOKED_AT` of the files, evenly spread over them."""
    count = min(LOOKED_AT, len(files))
    return [files[place * len(files) // count] for place in range(count)]


def choose(
    run: Path, domain: str | None, inputs: Callable[[], Tensor], device: str = "auto", allow_code: bool = False
) -> Choice:
    """Choose the client whose mixture finds the inputs likeliest, among those that `domain` leaves open.

    Each client's model computes features with its own BatchNorm statistics; the score is their mean log-likelihood
    under the client's mixture. The whole set gets one client. Compared with what is usual in the client's own domain,
    by its median or by w(x), the choice was right less often: 2 of 4 embedded domains against 4 of 4, on a small run.

    Parameters
    ----------
    run : Path
        Run directory.
    domain : str or None
        A domain's or a client's name; None leaves all of them open.
    inputs : callable
        Gives some of them as they are stored, (N, ...); called only where there is something to choose.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    allow_code : bool
        As of `AdaptedModel.load`.

    Raises
    ------
    SettingsError
        If the run has no such domain, or no mixtures to choose by.
    """
    with loading(run, allow_code):
        settings = adaptation_settings(run, device)
        differs = differs_by_domain(settings)
    if not differs:
        return Choice(AdaptedModel.load(run, domain, device=device, allow_code=allow_code), {})
    clients = named_clients(run, settings, domain)
    if len(clients) == 1:
        return Choice(AdaptedModel.load(run, clients[0], device=device, allow_code=allow_code), {})
    looked_at, scores = inputs(), {}
    for client in clients:
        model = AdaptedModel.load(run, client, device=device, allow_code=allow_code)
        if model.mixture is not None:
            with torch.no_grad():
                scores[client] = model.log_likelihood(looked_at).mean().item()
    if not scores:
        raise SettingsError(
            f"no domain named, and {run} has no mixture to choose one by; name one with --domain, such as {clients[0]}"
        )
    best_first = dict(sorted(scores.items(), key=lambda item: -item[1]))
    return Choice(AdaptedModel.load(run, next(iter(best_first)), device=device, allow_code=allow_code), best_first)
