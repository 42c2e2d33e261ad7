"""The model of one domain as its client predicts with it, put together out of a run directory.

It is what ``fmtda predict`` and ``fmtda export`` use, and a notebook: ``fmtda.AdaptedModel.load(run, domain="svhn")``.

Shapes: B examples, C classes; pictures (B, 3, H, W); for segmentation a class a pixel, (B, C, H, W).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fmtda.adaptation.heads import by_head, decisive
from fmtda.adaptation.mixture import Mixture
from fmtda.adaptation.network import Network
from fmtda.adaptation.registry import AUGMENTATIONS
from fmtda.domains.registry import family
from fmtda.inference.client_parts import (
    LOCAL_FILES,
    adaptation_settings,
    client_named,
    client_parts,
    network_of,
    server_network,
)
from fmtda.protocol.runtime import choose_device
from fmtda.protocol.seeds import domain_of
from fmtda.protocol.settings import Settings, SettingsError
from fmtda.protocol.workloads import read_settings

LOOKS_LIKE_FROM = 1 / 32
"""Typicality from which a picture looks like the domain (our choice): above the first step of its 33 quantiles."""

PATHS = ("data-dir", "base-dir", "output", "resume")
"""Keys of a run that belong to the machine it ran on, left out of a saved model."""


_MIXTURE_FIELDS = ("weights", "means", "variances", "quantiles")


@dataclass(frozen=True)
class Prediction:
    """What the model says of a batch.

    Attributes
    ----------
    probabilities : Tensor, (B, C) or (B, C, H, W)
        What counts: those of `AdaptedModel.head`.
    by_head : dict of Tensor
        The same by each of `adaptation.heads.HEADS`, as far as there are.
    typicality : Tensor, (B,), or None
        w(x) in [0, 1], the place of a picture's likelihood among those usual in the domain; for segmentation the mean
        over its places. None where there is no mixture.
    """

    probabilities: Tensor
    by_head: dict[str, Tensor]
    typicality: Tensor | None

    @property
    def labels(self) -> Tensor:
        """The likeliest class, int64 (B,) or (B, H, W)."""
        return self.probabilities.argmax(dim=1)

    @property
    def looks_like_domain(self) -> Tensor | None:
        """The mixture's verdict, bool (B,)."""
        return None if self.typicality is None else self.typicality >= LOOKS_LIKE_FROM


class AdaptedModel(nn.Module):
    """Input standardisation, G with a client's BatchNorm statistics, its heads, and the mixture over its features.

    Called with inputs as they are stored, it gives the probabilities that count; `predict` gives all there is. Build it
    with `load`.

    Parameters
    ----------
    settings : Settings
        The run's.
    client : str
        ``domain/share``, or empty where nothing is a client's own.
    networks : mapping of str to Network
        ``global``, and where there are ``local`` and ``personal``.
    mixture : Mixture or None
        W_T.
    parts : str
        What of the client was there, for people.
    """

    def __init__(
        self, settings: Settings, client: str, networks: Mapping[str, Network], mixture: Mixture | None, parts: str
    ) -> None:
        super().__init__()
        self.settings, self.client, self.parts = settings, client, parts
        self.augmentation = AUGMENTATIONS[family(settings.data).kind]
        if "local" in networks:
            _share_equal(networks["global"], networks["local"])
        for head, network in networks.items():
            self.add_module(f"{head}_network", network)
        self.has_mixture = mixture is not None
        if mixture is not None:
            for name, tensor in _tensors(mixture).items():
                self.register_buffer(f"mixture_{name}", tensor)
        self.requires_grad_(False).eval()

    @classmethod
    def load(
        cls, run: str | Path, domain: str | None = None, local: str | Path | None = None, device: str = "auto"
    ) -> "AdaptedModel":
        """The model of a domain, out of a run directory or a file that `save` wrote.

        Parameters
        ----------
        run : path
            Run directory of ``fmtda simulate``, or of a deployment's server; or a ``.safetensors`` file.
        domain : str, optional
            ``svhn``, or ``svhn/0003`` for one of several clients of a domain; the first of them otherwise. May be left
            out where `local` says it, or nothing differs between the run's domains.
        local : path, optional
            The client's own folder. Default: the one in the run directory, which a simulation has.
        device : str
            ``auto``, ``cpu`` or ``cuda``.

        Raises
        ------
        SettingsError
            Naming what was given and what there is: no run, one of another workload, no such domain, no local part.
        """
        path = Path(run).expanduser().absolute()
        if path.is_file():
            if domain is not None or local is not None:
                raise SettingsError(f"{run}: a file holds the model of one client; leave domain and local out")
            return cls._from_file(path, device)
        settings = adaptation_settings(path, device)
        own_folder = Path(local).expanduser().absolute() if local is not None else None
        client = client_named(path, settings, domain, own_folder)
        folder = own_folder or path / "clients" / client
        if own_folder is not None and not any((folder / name).exists() for name in LOCAL_FILES):
            raise SettingsError(
                f"local={local}: no client's folder (none of {', '.join(LOCAL_FILES)} is in it); in a simulation they "
                f"are {path / 'clients'}/DOMAIN/SHARE"
            )
        network = server_network(path, settings)
        networks, mixture, parts = client_parts(settings, client, network, folder, path)
        return cls(settings, client, networks, mixture, parts)

    @property
    def networks(self) -> dict[str, Network]:
        """By head: ``global``, and where there are ``local`` and ``personal``."""
        modules = {head: getattr(self, f"{head}_network", None) for head in ("global", "local", "personal")}
        return {head: network for head, network in modules.items() if network is not None}

    @property
    def head(self) -> str:
        """Which head counts, as `adaptation.heads.decisive` says."""
        return decisive({head: head for head in self._heads()}, self.settings.inference)

    @property
    def domain(self) -> str:
        """The domain in the client's name."""
        return domain_of(self.client) if self.client else ""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return self.settings.class_names

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input: (3, H, W), or (D,) for feature vectors."""
        return self.settings.shape

    @property
    def segmentation(self) -> bool:
        """Whether every pixel gets a class."""
        return family(self.settings.data).segmentation

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def mixture(self) -> Mixture | None:
        """W_T over the features of ``networks["global"]``."""
        if not self.has_mixture:
            return None
        return Mixture(**{name: getattr(self, f"mixture_{name}") for name in _MIXTURE_FIELDS})

    def forward(self, inputs: Tensor) -> Tensor:
        """Class probabilities that count, (B, C) or (B, C, H, W).

        Parameters
        ----------
        inputs : Tensor
            uint8 pictures (B, 3, H, W) with values 0 to 255, or float32 feature vectors (B, D).

        Raises
        ------
        ValueError
            If they are of another shape.
        """
        return self.probabilities(inputs)[self.head]

    def probabilities(self, inputs: Tensor) -> dict[str, Tensor]:
        """Class probabilities of every head, as `Prediction.by_head`."""
        return self._by_head(*self._prepared_with_features(inputs))

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> Prediction:
        """Probabilities by head, and how usual each input is in the domain; parameters and errors as of a call."""
        prepared, features = self._prepared_with_features(inputs)
        by_head = self._by_head(prepared, features)
        typicality = None
        if self.has_mixture:
            rows = self.mixture.typicality(features.flatten(0, -2))
            typicality = rows.reshape(len(inputs), -1).mean(dim=1)
        return Prediction(by_head[self.head], by_head, typicality)

    def log_likelihood(self, inputs: Tensor) -> Tensor:
        """Of each input under the domain's mixture, in nats, float64 (B,): the mean over places for segmentation."""
        _, features = self._prepared_with_features(inputs)
        return self.mixture.log_likelihood(features.flatten(0, -2)).reshape(len(inputs), -1).mean(dim=1)

    def save(self, file: str | Path) -> None:
        """Write all of it into one ``.safetensors`` file, which `load` takes; paths of this machine stay out."""
        settings = {key: value for key, value in self.settings.run_config().items() if key not in PATHS}
        about = {"settings": settings, "client": self.client, "parts": self.parts, "heads": list(self.networks)}
        # Copies: networks that share G are two in the file.
        state = {name: tensor.detach().cpu().clone() for name, tensor in self.state_dict().items()}
        save_file(state, Path(file), metadata={"fmtda": json.dumps(about)})

    @classmethod
    def _from_file(cls, path: Path, device: str) -> "AdaptedModel":
        try:
            with safe_open(path, "pt") as opened:
                about = json.loads((opened.metadata() or {})["fmtda"])
                state = {name: opened.get_tensor(name) for name in opened.keys()}
        except (SafetensorError, KeyError, ValueError):
            raise SettingsError(
                f"{path}: no model of fmtda; give a run directory, or a file of fmtda export --format safetensors"
            ) from None
        settings = read_settings({**about["settings"], "device": device})
        fields = {name: state.pop(f"mixture_{name}") for name in _MIXTURE_FIELDS if f"mixture_{name}" in state}
        networks = {}
        for head in about["heads"]:
            prefix = f"{head}_network."
            own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
            networks[head] = network_of(settings, own)
        mixture = Mixture(**fields).to(choose_device(device)) if fields else None
        return cls(settings, about["client"], networks, mixture, about["parts"])

    def _heads(self) -> list[str]:
        """As `Prediction.by_head` names them."""
        return [*self.networks, *(["mean"] if "local" in self.networks else [])]

    def _prepared_with_features(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        if tuple(inputs.shape[1:]) != self.input_shape:
            raise ValueError(
                f"inputs of shape {tuple(inputs.shape)}: this model takes (B, {', '.join(map(str, self.input_shape))})"
            )
        prepared = self.augmentation.prepare(inputs.to(self.device), self.settings.standardise)
        return prepared, self.networks["global"].feature_extractor(prepared)

    def _by_head(self, prepared: Tensor, features: Tensor) -> dict[str, Tensor]:
        """What `clients.adaptation` computes; a network that shares G with ``global`` shares its features."""
        shared = self.networks["global"].feature_extractor
        probabilities = {}
        for name, network in self.networks.items():
            extractor = network.feature_extractor
            own_features = features if extractor is shared else extractor(prepared)
            probabilities[name] = network.logits(own_features, prepared.shape[-2:]).softmax(dim=1)
        return by_head(probabilities, self.settings.inference)


def _share_equal(network: Network, local: Network) -> None:
    """Let two networks with equal G compute its features once."""
    own, other = network.feature_extractor.state_dict(), local.feature_extractor.state_dict()
    if all(torch.equal(own[name], other[name]) for name in own):
        local.feature_extractor = network.feature_extractor


def _tensors(mixture: Mixture) -> dict[str, Tensor]:
    return {name: getattr(mixture, name) for name in _MIXTURE_FIELDS}
