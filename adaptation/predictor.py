"""What a client predicts with: its networks by head, the rule that says which head counts, and its mixture.

Every algorithm makes one of these (`strategies.algorithm`), and evaluation, the report's illustration, predictions,
exports and notebooks all use it.

Shapes: B examples, C classes, D features; for segmentation a class a pixel, (B, C, H, W).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fmtda.adaptation.heads import by_head, decisive
from fmtda.adaptation.mixture import Mixture
from fmtda.adaptation.network import Network

MIXTURE_FIELDS = ("weights", "means", "variances", "quantiles")


class Predictor(nn.Module):
    """Networks that predict together, in evaluation mode and without gradients.

    Called with prepared inputs (B, ...), it gives the probabilities that count, (B, C) or (B, C, H, W).

    Parameters
    ----------
    networks : mapping of str to Network
        ``global`` (G and F_g), and where there are ``local`` (the client's G and F_l) and ``personal`` (its own copy).
        Where the first two have an equal G, its features are computed once.
    inference : {"mean", "local"}
        Which head counts where there is no own copy, see `adaptation.heads`.
    mixture : Mixture or None
        W_T over the features of ``global``.
    parts : str
        What of the client was there to make it of, for people.
    """

    def __init__(
        self,
        networks: Mapping[str, Network],
        inference: str = "mean",
        mixture: Mixture | None = None,
        parts: str = "the global model",
    ) -> None:
        super().__init__()
        self.inference, self.parts = inference, parts
        if "local" in networks:
            _share_equal(networks["global"], networks["local"])
        self._names = tuple(networks)
        for name, network in networks.items():
            self.add_module(f"{name}_network", network)
        self.has_mixture = mixture is not None
        if mixture is not None:
            for name in MIXTURE_FIELDS:
                self.register_buffer(f"mixture_{name}", getattr(mixture, name))
        self.requires_grad_(False).eval()

    @property
    def networks(self) -> dict[str, Network]:
        """The networks by name: ``global``, and where there are ``local`` and ``personal``."""
        return {name: self.get_submodule(f"{name}_network") for name in self._names}  # type: ignore[misc]

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads in the order of `adaptation.heads.by_head`."""
        mean = ["mean"] if "local" in self._names else []
        return tuple([*(name for name in self._names if name != "personal"), *mean, *self._personal])

    @property
    def head(self) -> str:
        """The head that counts."""
        return decisive({head: head for head in self.heads}, self.inference)

    @property
    def mixture(self) -> Mixture | None:
        """W_T, or None where there is none."""
        if not self.has_mixture:
            return None
        return Mixture(**{name: getattr(self, f"mixture_{name}") for name in MIXTURE_FIELDS})

    def forward(self, prepared: Tensor) -> Tensor:
        return self.by_head(prepared)[self.head]

    def by_head(self, prepared: Tensor) -> dict[str, Tensor]:
        """Compute the class probabilities of every head."""
        return self.with_features(prepared)[0]

    def with_features(self, prepared: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Compute the class probabilities of every head, and the features z (B, D), or (B, h, w, D), of ``global``."""
        networks = self.networks
        shared = networks["global"].feature_extractor
        features = shared(prepared)
        probabilities = {}
        for name, network in networks.items():
            extractor = network.feature_extractor
            own = features if extractor is shared else extractor(prepared)
            probabilities[name] = network.logits(own, prepared.shape[-2:]).softmax(dim=1)
        return by_head(probabilities, self.inference), features

    @property
    def _personal(self) -> list[str]:
        return ["personal"] if "personal" in self._names else []


def _share_equal(network: Network, local: Network) -> None:
    """Let two networks with equal G compute its features once."""
    own, other = network.feature_extractor.state_dict(), local.feature_extractor.state_dict()
    if all(torch.equal(own[name], other[name]) for name in own):
        local.feature_extractor = network.feature_extractor
