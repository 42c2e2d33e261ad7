"""W_T of a client: which of its examples it is fitted to, and how it follows their features while the client trains."""

import torch
from torch import Tensor

from fmtda.adaptation.mixture import Mixture, StepwiseEM, hold_out
from fmtda.clients.identity import Client
from fmtda.protocol.seeds import seed_for


def fitted_and_held_out(client: Client, examples: int) -> tuple[Tensor, Tensor]:
    """Indices of the examples that a client's mixture is fitted to, and of those that its quantiles come from.

    The same in every round, so that no example is ever of both kinds.
    """
    fitted, held_out = hold_out(examples, seed_for(client.settings.seed, client.name, "mixture hold-out"))
    return torch.from_numpy(fitted), torch.from_numpy(held_out)


class FollowingMixture:
    """Begins as W_S and takes a step of EM on every mini-batch (Algorithm 1, line 10).

    Who trains and who only joins drive the same steps: over equal mini-batches both get the same mixture, bit by bit.

    Parameters
    ----------
    source_mixture
        W_S.
    features
        z of all the client's examples, (N, D).
    client
        Whose they are.
    """

    def __init__(self, source_mixture: Mixture, features: Tensor, client: Client) -> None:
        device = features.device
        fitted, held_out = (part.to(device) for part in fitted_and_held_out(client, len(features)))
        self._features, self._held_out = features[fitted], features[held_out]
        self._is_fitted = torch.zeros(len(features), dtype=torch.bool, device=device).index_fill(0, fitted, True)
        self._expectation_maximisation = StepwiseEM(source_mixture, self._features)
        self._floor = client.settings.mixture_floor

    def update(self, batch: Tensor, z: Tensor) -> None:
        """Follow the features `z`, (B, D), of the examples `batch`, (B,); held-out ones don't count."""
        z_fitted = z[self._is_fitted[batch]]
        if len(z_fitted):
            self._expectation_maximisation.update(z_fitted)

    def finish(self) -> Mixture:
        """W_T, without components of too few examples, with the quantiles of the held-out ones."""
        self._expectation_maximisation.leave_out_small(self._features, self._floor)
        return self._expectation_maximisation.finish(self._held_out)
