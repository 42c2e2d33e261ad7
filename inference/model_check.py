"""Refuses a model that can't be used, in one line: what it would import unasked, what doesn't fit, what is no number.

A saved model, a client's folder and a run directory may all come from somebody else, and nothing in them tells. So
each is read by these rules: no module is imported that no installed package has registered, unless that was allowed.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fmtda.adaptation.mixture import Mixture
from fmtda.adaptation.predictor import Predictor
from fmtda.domains.examples import DataError
from fmtda.domains.reading_rights import Unreadable, check_readable, matching
from fmtda.protocol.printable import printable
from fmtda.protocol.registry import names_alone
from fmtda.protocol.tables import SettingsError

LONGEST_LINE = 1000
"""Characters of a line on what was refused, at most."""


def trusting(allow_code: bool) -> AbstractContextManager[None]:
    """Say whether places, ``package.module:Class``, may be imported in here, or registered names alone."""
    return nullcontext() if allow_code else names_alone()


@contextmanager
def loading(where: Path, allow_code: bool) -> Iterator[None]:
    """Load somebody's model in here: whatever is wrong with it becomes a `SettingsError` of printable lines."""
    try:
        with trusting(allow_code):
            yield
    except Unreadable:
        raise
    except (SettingsError, DataError) as error:
        lines = [printable(line, LONGEST_LINE) for line in str(error).splitlines()]
        lines[:1] = [line if str(where) in line else f"{where}: {line}" for line in lines[:1]]
        raise SettingsError("\n".join(lines)) from None
    except (ValueError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise SettingsError(f"{where}: no model that can be used: {shown(error)}") from None


def shown(error: Exception) -> str:
    """Return what an error of torch or Python says on one line; the names of what was missing alone say little."""
    text = f"lacks {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
    return printable(" ".join(text.split()))


def check_parts(*folders: Path | None) -> None:
    """Refuse what a client or a server keeps of it, where it can't be read: a weaker model would take its place.

    Raises
    ------
    Unreadable
        If something is there that this account may not read.
    SettingsError
        If a file is damaged.
    """
    for folder in folders:
        for file in matching(folder, "*.safetensors") if folder is not None else ():
            check_readable(file)
            try:
                with safe_open(file, "pt"):
                    pass
            except SafetensorError as error:
                raise SettingsError(
                    f"{file}: damaged ({printable(error)}); get it anew, or remove it to go on without this part"
                ) from None


def check_predictor(predictor: Predictor, layout: Mapping[str, Tensor]) -> None:
    """Refuse networks and a mixture of other shapes, types or values than can be.

    Parameters
    ----------
    predictor
        Of whatever origin.
    layout
        The state of a network of the run's architecture; its values are not looked at.

    Raises
    ------
    ValueError
        Naming the array.
    """
    for head, network in predictor.networks.items():
        for name, tensor in network.state_dict().items():
            expected = layout.get(name)
            if expected is not None and (tensor.dtype, tensor.shape) != (expected.dtype, expected.shape):
                raise ValueError(f"{name} ({head}) is {_kind(tensor)}, expected {_kind(expected)}")
            if not tensor.isfinite().all():
                raise ValueError(f"{name} ({head}) holds values that are not finite")
    if (mixture := predictor.mixture) is not None:
        Mixture.from_arrays(mixture.arrays())
        features = predictor.networks["global"].feature_size
        if mixture.means.shape[1] != features or any(t.dtype != torch.float32 for t in mixture.tensors().values()):
            raise ValueError(f"mixture_means is {_kind(mixture.means)}, expected float32 over {features} features")


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
