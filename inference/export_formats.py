"""Writes an adapted model as one file for other programs: ONNX, safetensors, or torch.export's.

Standardisation of the inputs, the domain's BatchNorm statistics and the heads are all inside. A program feeds pictures
as it has them, uint8 (B, 3, H, W), and gets probabilities; B is free.
"""

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from fmtda.inference.adapted_model import AdaptedModel

INPUT = "inputs"


class MissingExportExtra(ImportError):
    """Raised for a format whose packages are not installed; the message says what to install."""


class _Outputs(nn.Module):
    """The probabilities that count, and those of each head, as a tuple: exported programs know no dictionary."""

    def __init__(self, model: AdaptedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        by_head = self.model.probabilities(inputs)
        return tuple(by_head[head] for head in (self.model.head, *by_head))


def output_names(model: AdaptedModel) -> list[str]:
    """List ``probabilities``, those that count, then ``probabilities_global`` and so on, as far as there are heads."""
    with torch.no_grad():  # a plain `mean` would be the name of an operation too
        return ["probabilities", *(f"probabilities_{head}" for head in model.probabilities(_examples(model)))]


def to_onnx(model: AdaptedModel, file: Path) -> None:
    """Write one ``.onnx`` file, by torch's exporter; outputs are called as `output_names`.

    Raises
    ------
    MissingExportExtra
        Without onnx and onnxscript.
    """
    if missing := [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]:
        raise MissingExportExtra(
            f"--format onnx needs {' and '.join(missing)}; install them with: pip install -e '.[export]'"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Outputs(model),
            (_examples(model),),
            file,
            input_names=[INPUT],
            output_names=output_names(model),
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch", min=1)}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def to_torch_export(model: AdaptedModel, file: Path) -> None:
    """Write one ``.pt2`` file for ``torch.export.load``; its outputs are a tuple in the order of `output_names`."""
    dynamic = {INPUT: {0: torch.export.Dim("batch", min=1)}}
    with torch.no_grad():
        program = torch.export.export(_Outputs(model), (_examples(model),), dynamic_shapes=dynamic)
    torch.export.save(program, file)


def to_safetensors(model: AdaptedModel, file: Path) -> None:
    """Write one ``.safetensors`` file with the mixture too, for ``AdaptedModel.load`` and ``fmtda predict``."""
    model.save(file)


FORMATS: dict[str, tuple[str, Callable[[AdaptedModel, Path], None]]] = {
    "onnx": (".onnx", to_onnx),
    "safetensors": (".safetensors", to_safetensors),
    "torch-export": (".pt2", to_torch_export),
}
"""Of each format the ending of its files and what writes one."""


def _examples(model: AdaptedModel) -> Tensor:
    """Two inputs of the model's shape and type: a batch of one would be taken for a constant."""
    pictures = len(model.input_shape) == 3
    return torch.zeros(2, *model.input_shape, dtype=torch.uint8 if pictures else torch.float32, device=model.device)
