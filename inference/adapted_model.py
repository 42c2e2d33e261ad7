"""Puts together, out of a run directory, the model of one domain as its client predicts with it.

It is what ``fmtda predict`` and ``fmtda export`` use, and a notebook: ``fmtda.AdaptedModel.load(run, domain="svhn")``.

Shapes: B examples, C classes; pictures (B, 3, H, W); for segmentation a class a pixel, (B, C, H, W).

Our choice: how unlikely a picture may be and still look like its domain.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fmtda.adaptation.mixture import Mixture
from fmtda.adaptation.network import Network
from fmtda.adaptation.predictor import MIXTURE_FIELDS, Predictor
from fmtda.adaptation.registry import AUGMENTATIONS
from fmtda.domains.registry import family
from fmtda.inference.run_clients import (
    adaptation_settings,
    algorithm_of,
    client_named,
    client_of,
    server_network,
)
from fmtda.protocol.client_names import domain_of
from fmtda.protocol.runtime import choose_device
from fmtda.protocol.settings import AdaptationSettings
from fmtda.protocol.tables import SettingsError
from fmtda.strategies.composition import read_settings

LOOKS_LIKE_FROM = 1 / 32
"""Typicality from which a picture looks like the domain: above the first step of its 33 quantiles."""


@dataclass(frozen=True)
class Prediction:
    """Holds what the model says of a batch.

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
    """Joins a client's predictor and the preparation of inputs before it.

    Called with inputs as they are stored, it gives the probabilities that count; `predict` gives all there is. Build it
    with `load`.

    Parameters
    ----------
    settings : AdaptationSettings
        The run's.
    client : str
        ``domain/share``, or empty where nothing is a client's own.
    predictor : Predictor
        Its networks, heads and mixture.
    """

    def __init__(self, settings: AdaptationSettings, client: str, predictor: Predictor) -> None:
        super().__init__()
        self.settings, self.client, self.predictor = settings, client, predictor
        self.augmentation = AUGMENTATIONS[family(settings.data.name).kind]
        self.requires_grad_(False).eval()

    @classmethod
    def load(
        cls, run: str | Path, domain: str | None = None, local: str | Path | None = None, device: str = "auto"
    ) -> "AdaptedModel":
        """Load the model of a domain, out of a run directory or a file that `save` wrote.

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
        name = client_named(path, settings, domain, own_folder)
        folder = own_folder or path / "clients" / name
        if own_folder is not None:
            where = f"in a simulation they are {path / 'clients'}/DOMAIN/SHARE"
            if (own_folder / "config.toml").exists():
                raise SettingsError(f"local={local}: this is a run directory and no client's folder; {where}")
            if not any(own_folder.glob("*.safetensors")):
                raise SettingsError(f"local={local}: no client's folder (no .safetensors file is in it); {where}")
        network = server_network(path, settings)
        client = client_of(path, settings, name, folder, None)
        try:
            return cls(settings, name, algorithm_of(settings).predictor(network, client))
        except (ValueError, RuntimeError, KeyError) as error:
            raise SettingsError(
                f"{folder}: doesn't fit the run in {path} ({str(error).splitlines()[0]}); is it another run's client?"
            ) from None

    @property
    def networks(self) -> dict[str, Network]:
        """The networks by name: ``global``, and where there are ``local`` and ``personal``."""
        return self.predictor.networks

    @property
    def head(self) -> str:
        """The head that counts, as `adaptation.heads.decisive` says."""
        return self.predictor.head

    @property
    def parts(self) -> str:
        """A line for people on what of the client was there."""
        return self.predictor.parts

    @property
    def domain(self) -> str:
        """The domain in the client's name."""
        return domain_of(self.client) if self.client else ""

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in the order of the labels."""
        return self.settings.class_names

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input: (3, H, W), or (D,) for feature vectors."""
        return self.settings.shape

    @property
    def segmentation(self) -> bool:
        """Whether every pixel gets a class."""
        return family(self.settings.data.name).segmentation

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @property
    def mixture(self) -> Mixture | None:
        """W_T over the features of ``networks["global"]``."""
        return self.predictor.mixture

    def forward(self, inputs: Tensor) -> Tensor:
        """Give the class probabilities that count, (B, C) or (B, C, H, W).

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
        """Give the class probabilities of every head, as `Prediction.by_head`."""
        return self.predictor.by_head(self._prepared(inputs))

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> Prediction:
        """Give probabilities by head, and how usual each input is in the domain; parameters and errors as of a call."""
        by_head, features = self.predictor.with_features(self._prepared(inputs))
        typicality = None
        if (mixture := self.mixture) is not None:
            typicality = mixture.typicality(features.flatten(0, -2)).reshape(len(inputs), -1).mean(dim=1)
        return Prediction(by_head[self.head], by_head, typicality)

    def log_likelihood(self, inputs: Tensor) -> Tensor:
        """Compute each input's log-likelihood under the domain's mixture, in nats.

        Returns
        -------
        Tensor, (B,), float64
            For segmentation the mean over places.

        Raises
        ------
        ValueError
            Where there is no mixture.
        """
        if (mixture := self.mixture) is None:
            raise ValueError(f"{self.client or 'this model'} has no mixture")
        _, features = self.predictor.with_features(self._prepared(inputs))
        return mixture.log_likelihood(features.flatten(0, -2)).reshape(len(inputs), -1).mean(dim=1)

    def save(self, file: str | Path) -> None:
        """Write all of it into one ``.safetensors`` file, which `load` takes; paths of this machine stay out."""
        places = {entry.key for entry in type(self.settings).fields() if entry.meaning.place}
        settings = {key: value for key, value in self.settings.flat().items() if key not in places}
        about = {"settings": settings, "client": self.client, "parts": self.parts, "heads": list(self.networks)}
        # Copies: networks that share G are two in the file.
        state = {name: tensor.detach().cpu().clone() for name, tensor in self.predictor.state_dict().items()}
        save_file(state, Path(file), metadata={"fmtda": json.dumps(about)})

    @classmethod
    def _from_file(cls, path: Path, device: str) -> "AdaptedModel":
        try:
            with safe_open(path, "pt") as opened:
                about = json.loads((opened.metadata() or {})["fmtda"])
                given = dict(about["settings"])
                state = {name: opened.get_tensor(name) for name in opened.keys()}
        except (SafetensorError, KeyError, TypeError, ValueError):
            raise SettingsError(
                f"{path}: no model of fmtda; give a run directory, or a file of fmtda export --format safetensors"
            ) from None
        if "data.name" not in given:
            raise SettingsError(f"{path}: this model was written by an earlier version of fmtda; export it anew")
        settings = cast(AdaptationSettings, read_settings({**given, "device": device}))
        algorithm = algorithm_of(settings)
        fields = {name: state.pop(f"mixture_{name}") for name in MIXTURE_FIELDS if f"mixture_{name}" in state}
        networks = {}
        for head in about["heads"]:
            prefix = f"{head}_network."
            own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
            networks[head] = algorithm.network(own, settings)
        mixture = Mixture(**fields).to(choose_device(device)) if fields else None
        predictor = Predictor(networks, algorithm.inference(settings), mixture, about["parts"])
        return cls(settings, about["client"], predictor)

    def _prepared(self, inputs: Tensor) -> Tensor:
        if tuple(inputs.shape[1:]) != self.input_shape:
            raise ValueError(
                f"inputs of shape {tuple(inputs.shape)}: this model takes (B, {', '.join(map(str, self.input_shape))})"
            )
        return self.augmentation.prepare(inputs.to(self.device), self.settings.inputs.standardise)
