"""Puts together, out of a run directory, the model of one domain as its client predicts with it.

It is what ``fmtda predict`` and ``fmtda export`` use, and a notebook: ``fmtda.AdaptedModel.load(run, domain="svhn")``.
A client's own folder, and a file that was exported, are such models too.

Shapes: B examples, C classes; pictures (B, 3, H, W); for segmentation a class a pixel, (B, C, H, W).

Our choice: how unlikely a picture may be and still look like its domain.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fmtda.adaptation.mixture import Mixture
from fmtda.adaptation.network import Network
from fmtda.adaptation.predictor import MIXTURE_FIELDS, Predictor
from fmtda.adaptation.registry import AUGMENTATIONS, empty_network
from fmtda.domains.kept_model import is_kept, portable, read_kept
from fmtda.domains.reading_rights import check_readable, matching, rights_to_read
from fmtda.domains.registry import family
from fmtda.inference.model_check import check_parts, check_predictor, loading, shown
from fmtda.inference.run_clients import (
    adaptation_settings,
    algorithm_of,
    classifying,
    client_named,
    client_of,
    newest_checkpoint,
)
from fmtda.protocol.client_names import domain_of
from fmtda.protocol.printable import printable
from fmtda.protocol.runtime import choose_device
from fmtda.protocol.settings import AdaptationSettings
from fmtda.protocol.tables import SettingsError, flattened, nested
from fmtda.strategies.algorithm import Algorithm
from fmtda.strategies.composition import settings_in

HEADS = ("global", "local", "personal")
"""The names of the networks that a model may have."""

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
    round : int, optional
        After whose training the global model is; None where that is not known.
    """

    def __init__(
        self, settings: AdaptationSettings, client: str, predictor: Predictor, round: int | None = None
    ) -> None:
        super().__init__()
        self.settings, self.client, self.predictor, self.round = settings, client, predictor, round
        self.augmentation = AUGMENTATIONS[family(settings.data.name).kind]
        self.requires_grad_(False).eval()

    @classmethod
    def load(
        cls,
        run: str | Path,
        domain: str | None = None,
        local: str | Path | None = None,
        device: str = "auto",
        allow_code: bool = False,
    ) -> "AdaptedModel":
        """Load the model of a domain, out of a run directory, a client's own folder, or a file that `save` wrote.

        Parameters
        ----------
        run : path
            Run directory of ``fmtda simulate``, or of a deployment's server; a client's folder in a deployment, on
            that client's machine; or a ``.safetensors`` file.
        domain : str, optional
            ``svhn``, or ``svhn/0003`` for one of several clients of a domain; the first of them otherwise. May be left
            out where `local` says it, or nothing differs between the run's domains.
        local : path, optional
            The client's own folder. Default: the one in the run directory, which a simulation has.
        device : str
            ``auto``, ``cpu`` or ``cuda``.
        allow_code : bool
            Whether modules may be imported that the settings name by their place, ``package.module:Class``: they run.
            Whoever made a run, a folder or a file decides what they name, so allow it for your own alone.

        Raises
        ------
        SettingsError
            Naming what was given and what there is: no run, one of another workload, no such domain, no local part;
            a part that this account may not read, or that is damaged; a file, or a folder, that is no model.
        """
        path = Path(run).expanduser().absolute()
        with rights_to_read(path):
            is_file = path.is_file()
        with loading(path, allow_code):
            if is_file:
                if domain is not None or local is not None:
                    raise SettingsError(f"{run}: a file holds the model of one client; leave domain and local out")
                return cls._from_file(path, device)
            if is_kept(path):
                if local is not None:
                    raise SettingsError(f"local={local}: {path} is a client's folder itself; leave local out")
                return cls._from_clients_folder(path, domain, device)
            return cls._from_run(path, domain, local, device)

    @classmethod
    def _from_run(cls, path: Path, domain: str | None, local: str | Path | None, device: str) -> "AdaptedModel":
        settings = adaptation_settings(path, device)
        own_folder = Path(local).expanduser().absolute() if local is not None else None
        name = client_named(path, settings, domain, own_folder)
        folder = own_folder or path / "clients" / name
        if own_folder is not None:
            where = f"in a simulation they are {path / 'clients'}/DOMAIN/SHARE"
            if matching(own_folder, "config.toml"):
                raise SettingsError(f"local={local}: this is a run directory and no client's folder; {where}")
            if not matching(own_folder, "*.safetensors"):
                raise SettingsError(f"local={local}: no client's folder (no .safetensors file is in it); {where}")
        checkpoint, algorithm = newest_checkpoint(path), algorithm_of(settings)
        network = algorithm.network(checkpoint.model, settings)
        client = client_of(path, settings, name, folder, None)
        check_parts(client.folder, client.elsewhere)
        try:
            predictor = algorithm.predictor(network, client)
            check_predictor(predictor, _layout(algorithm, settings))
        except (ValueError, RuntimeError, KeyError) as error:
            raise SettingsError(
                f"{folder}: doesn't fit the run in {path} ({shown(error)}); is it another run's client?"
            ) from None
        return cls(settings, name, predictor, checkpoint.round)

    @classmethod
    def _from_clients_folder(cls, path: Path, domain: str | None, device: str) -> "AdaptedModel":
        kept = read_kept(path)
        if domain not in (None, kept.client, domain_of(kept.client)):
            raise SettingsError(f"domain={domain}: {path} is the folder of {kept.client}; leave domain out")
        settings = classifying(settings_in(kept.settings).changed({"device": device}), path)
        algorithm = algorithm_of(settings)
        network = algorithm.network(kept.arrays, settings)
        predictor = algorithm.predictor(network, client_of(None, settings, kept.client, path, None))
        check_predictor(predictor, _layout(algorithm, settings))
        return cls(settings, kept.client, predictor, kept.round)

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
    def account(self) -> str:
        """A line for people on whose model it is, of which round, and what of the client was there."""
        whose = f"the model of {self.client}" if self.client else "the model of all clients"
        after = "" if self.round is None else f" after round {self.round}"
        return f"{whose}{after}: {self.parts}"

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
        about = {
            "settings": portable(self.settings),
            "client": self.client,
            "round": self.round,
            "parts": self.parts,
            "heads": list(self.networks),
        }
        # Copies: networks that share G are two in the file.
        state = {name: tensor.detach().cpu().clone() for name, tensor in self.predictor.state_dict().items()}
        save_file(state, Path(file), metadata={"fmtda": json.dumps(about)})

    @classmethod
    def _from_file(cls, path: Path, device: str) -> "AdaptedModel":
        check_readable(path)
        refused = f"{path}: no model of fmtda; give a run directory, or a file of fmtda export --format safetensors"
        try:
            with safe_open(path, "pt") as opened:
                about = json.loads((opened.metadata() or {})["fmtda"])
                given = dict(flattened(about["settings"]))
                state = {name: opened.get_tensor(name) for name in opened.keys()}
        except (SafetensorError, LookupError, TypeError, ValueError, AttributeError, RecursionError):
            raise SettingsError(refused) from None
        if "data.name" not in given:
            raise SettingsError(f"{path}: this model was written by an earlier version of fmtda; export it anew")
        client, server_round, parts, heads = (about.get(key) for key in ("client", "round", "parts", "heads"))
        if not (
            isinstance(client, str)
            and client == printable(client)
            and isinstance(server_round, int | None)
            and isinstance(heads, list)
            and all(head in HEADS for head in heads)
            and "global" in heads
        ):
            raise SettingsError(refused)
        settings = classifying(settings_in(json.dumps(nested(given))).changed({"device": device}), path)
        algorithm = algorithm_of(settings)
        fields = {name: state.pop(f"mixture_{name}") for name in MIXTURE_FIELDS if f"mixture_{name}" in state}
        networks = {}
        for head in dict.fromkeys(heads):
            prefix = f"{head}_network."
            own = {name.removeprefix(prefix): state.pop(name) for name in list(state) if name.startswith(prefix)}
            networks[head] = algorithm.network(own, settings)
        if state:
            raise SettingsError(f"{path}: the array {next(iter(state))} belongs to no part of a model")
        mixture = Mixture(**fields).to(choose_device(device)) if fields else None
        predictor = Predictor(networks, algorithm.inference(settings), mixture, printable(parts))
        check_predictor(predictor, _layout(algorithm, settings))
        return cls(settings, client, predictor, server_round)

    def _prepared(self, inputs: Tensor) -> Tensor:
        if tuple(inputs.shape[1:]) != self.input_shape:
            raise ValueError(
                f"inputs of shape {tuple(inputs.shape)}: this model takes (B, {', '.join(map(str, self.input_shape))})"
            )
        return self.augmentation.prepare(inputs.to(self.device), self.settings.inputs.standardise)


def _layout(algorithm: Algorithm, settings: AdaptationSettings) -> dict[str, Tensor]:
    """The state of a network that predicts, without values."""
    return algorithm.architecture(empty_network(settings)).state_dict()


load = AdaptedModel.load
"""The same, as ``fmtda.load``."""
