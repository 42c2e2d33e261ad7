"""Adapts a finished run to one more domain, in this process: what a client of one more round would do, by its own code.

No server answers: G stays as the run left it. F_l, the mixture W_T, BatchNorm statistics and self-training are the new
client's, as the run's settings have them, and so is the personalised network where it is asked for.
"""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from fmtda.adaptation.registry import empty_network
from fmtda.domains.examples import DataError
from fmtda.domains.registry import family
from fmtda.inference.adapted_model import AdaptedModel
from fmtda.inference.model_check import loading, trusting
from fmtda.inference.pictures import found, read_all
from fmtda.inference.run_clients import adaptation_settings, algorithm_of, client_of, server_network
from fmtda.protocol.client_names import client_name
from fmtda.protocol.settings import AdaptationSettings
from fmtda.protocol.tables import SettingsError
from fmtda.server.run_directory import RunDirectory
from fmtda.strategies.registry import algorithms


def adapt(
    run: str | Path,
    examples: str | Path | Sequence[str | Path] | Tensor,
    domain: str = "new",
    personalise: bool = False,
    local: str | Path | None = None,
    device: str = "auto",
    allow_code: bool = False,
) -> AdaptedModel:
    """Make the model of a domain that was in no round, learned from its unlabelled examples.

    Parameters
    ----------
    run : path
        Run directory of ``fmtda simulate``, finished, of an algorithm that can do this (DualAdapt does).
    examples : path, sequence of paths, or Tensor
        Folder of pictures, or files; or inputs as they are stored: uint8 (N, 3, H, W), or float32 (N, D). Two at least.
    domain : str
        What to call it.
    personalise : bool
        Whether to train the domain's own copy of G too: better, and some minutes on a processor.
    local : path, optional
        Folder to keep what was learned in, for ``fmtda predict --local`` and `AdaptedModel.load`; forgotten without.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    allow_code : bool
        As of `AdaptedModel.load`.

    Returns
    -------
    AdaptedModel

    Raises
    ------
    SettingsError
        If the run isn't there, isn't finished, or its strategy adapts nothing on a client alone.
    DataError
        If there are no pictures, or fewer than two can be read.

    Warns
    -----
    UserWarning
        Naming each picture that can't be read.
    """
    with trusting(allow_code):
        return _adapted(Path(run).expanduser().absolute(), examples, domain, personalise, local, device, allow_code)


def _adapted(
    path: Path,
    examples: str | Path | Sequence[str | Path] | Tensor,
    domain: str,
    personalise: bool,
    local: str | Path | None,
    device: str,
    allow_code: bool,
) -> AdaptedModel:
    with loading(path, allow_code):
        settings = adaptation_settings(path, device)
        algorithm = algorithm_of(settings)
        family(settings.data.name)
        empty_network(settings)
    if not algorithm.adapts_outside:
        able = " or ".join(each.name for each in algorithms(settings.kind) if each.adapts_outside)
        raise SettingsError(
            f"{path}: strategy={settings.strategy} adapts to nothing outside its federation; name a run of {able}"
        )
    inputs = _inputs(examples, settings)
    closing = RunDirectory(path).closing()
    if missing := algorithm.closing_records - closing.keys():
        raise SettingsError(
            f"{path}: this run has no {' and '.join(sorted(missing)).replace('_', ' ')}; let it end, with: "
            f"fmtda simulate --resume {path}"
        )
    with tempfile.TemporaryDirectory() as forgotten:
        folder = Path(local).expanduser().absolute() if local is not None else Path(forgotten) / domain
        client = client_of(path, settings, client_name(domain, 0), folder, inputs)
        algorithm.adapt_outside(lambda: server_network(path, settings), closing, client, personalise)
        return AdaptedModel.load(path, domain, folder, device, allow_code)


def _inputs(examples: str | Path | Sequence[str | Path] | Tensor, settings: AdaptationSettings) -> Tensor:
    if isinstance(examples, Tensor):
        if tuple(examples.shape[1:]) != settings.shape:
            raise DataError(
                f"examples of shape {tuple(examples.shape)}: this run takes (N, {', '.join(map(str, settings.shape))})"
            )
        inputs = examples
    else:
        named = [examples] if isinstance(examples, (str, Path)) else examples
        inputs, unreadable = read_all(found(named), settings)
        for problem in unreadable:
            warnings.warn(problem, stacklevel=3)
    if len(inputs) < 2:
        raise DataError(f"{len(inputs)} examples: two at least are needed to adapt to a domain, hundreds are better")
    return inputs
