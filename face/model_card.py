"""Writes the card of an exported model: what it was trained on, how good it is, what it takes and is not for."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

from fmtda.face.run_files import read_summary
from fmtda.inference.adapted_model import AdaptedModel
from fmtda.inference.export_formats import output_names
from fmtda.protocol.printable import printable
from fmtda.protocol.settings import UNDISCLOSED, AdaptationSettings
from fmtda.server.metrics import ACCURACY, METRIC_NAMES
from fmtda.server.run_directory import versions

HEADS = {
    "global": "F_g, the classifier that all clients share",
    "local": "F_l, the client's own classifier",
    "mean": "(p_g + p_l) / 2",
    "personal": "the mean of the client's own copy of the whole network and of what counts without it",
}


def model_card(model: AdaptedModel, run: Path, file: Path, form: str) -> str:
    """Write the card as Markdown; names of domains, classes and files, which may be anybody's, stand as code.

    Parameters
    ----------
    model : AdaptedModel
    run : Path
        Its run directory; the accuracy is read from its summary.
    file : Path
        The exported model.
    form : str
        A key of `fmtda.inference.export_formats.FORMATS`.
    """
    settings, summary = model.settings, read_summary(run, [])
    examples = "pictures" if len(model.input_shape) == 3 else "feature vectors"
    domain = code(model.domain) if model.domain else "all domains"
    return "\n".join(
        [
            f"# {code(file.name)}: {code(settings.data.name)}, {domain}",
            "",
            f"A {'map of classes' if model.segmentation else 'class'} for every picture of the domain {domain}."
            if len(model.input_shape) == 3
            else f"A class for every feature vector of the domain {domain}.",
            f"Written by `fmtda export --format {form}`; inside are {code(model.account)}.",
            "",
            "## Trained on",
            "",
            *_data(settings),
            f"- rounds={settings.rounds} of {code(settings.strategy)}, preset {code(settings.preset)}, "
            f"seed {settings.seed}.",
            f"- Network {code(settings.network.name)}, {_parameters(model):,} weights with all heads. "
            "No target label was used.",
            "",
            "## How good it is",
            "",
            *_accuracy(model, summary),
            "",
            "## Input and output",
            "",
            *_interface(model, form, file),
            "",
            "## Meant for, and not",
            "",
            f"- Meant for {examples} like those of {domain}, of its {len(model.classes)} classes alone. Whatever is "
            "of none of them gets one too, perhaps with a high probability.",
            *_verdict(model, form),
            "- Probabilities are not calibrated: self-training tends to make them too sure.",
            f"- {examples.capitalize()} of another camera, place or time are another domain: adapt anew, and measure.",
            "- Not for decisions about people or safety without an evaluation of your own.",
            "",
            "## Versions",
            "",
            ", ".join(f"{name} {number}" for name, number in versions().items()),
            "",
        ]
    )


def code(text: str) -> str:
    """Make anybody's text a code span of Markdown, in which nothing is a link, a picture, HTML or a heading.

    Not for cells of a table: a ``|`` would end one even there.
    """
    shown = printable(text) or " "
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    edge = " " if "`" in (shown[0], shown[-1]) else ""
    return f"{fence}{edge}{shown}{edge}{fence}"


def _literal(text: str) -> str:
    """Make anybody's text a string of Python, on one line."""
    return printable(json.dumps(text, ensure_ascii=False), 1000)


def _data(settings: AdaptationSettings) -> list[str]:
    """What it was trained on, as far as the model's holder was told: a client knows its own domain alone."""
    if settings.data.source == UNDISCLOSED:
        return [f"- A labelled source on the server, of {code(settings.data.name)}, and clients without labels."]
    return [
        f"- Labelled source on the server: {code(settings.data.source)} of {code(settings.data.name)}.",
        f"- Unlabelled targets on the clients: {', '.join(map(code, settings.target_domains))}; "
        f"{settings.clients} clients.",
    ]


def _parameters(model: AdaptedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _accuracy(model: AdaptedModel, summary: dict[str, Any]) -> list[str]:
    by_head = summary.get("accuracy_by_head", {}).get(model.domain)
    if not by_head:
        return [
            "Not known: the run has no labels of this domain to measure on, has not ended, or its summary is not here."
        ]
    metric = METRIC_NAMES.get(summary.get("metric", ""), METRIC_NAMES[ACCURACY])
    before = summary.get("source_only", {}).get(model.domain)
    lines = [f"{metric} in percent on the domain's test part, over its clients, each with its own part:", ""]
    lines += [f"| head | {metric} |", "|---|---|"]
    if before is not None:
        lines.append(f"| the pre-trained network, before adaptation | {before:.1f} |")
    return lines + [f"| {HEADS[head]} | {value:.1f} |" for head, value in by_head.items()]


def _interface(model: AdaptedModel, form: str, file: Path) -> list[str]:
    shape = ", ".join(map(str, model.input_shape))
    if len(model.input_shape) == 3:
        how = (
            "stretched to that size"
            if model.segmentation
            else "shrunk until it covers that size, cropped in the middle"
        )
        kind = f"uint8 (B, {shape}), RGB, values 0 to 255, any B; a picture of another size is {how}"
    else:
        kind = f"float32 (B, {shape}), any B"
    extent = ", H, W" if model.segmentation else ""
    named = "as `prediction.probabilities` and in `prediction.by_head`" if form == "safetensors" else "in this order"
    lines = [
        f"- Input `inputs`: {kind}. Standardisation is inside.",
        f"- Outputs, float32 (B, {len(model.classes)}{extent}), class probabilities, {named}:",
        *(f"  - `{name}`: {_head(name)}" for name in output_names(model)),
        f"- Classes by index: {', '.join(f'{i} {code(name)}' for i, name in enumerate(model.classes))}.",
        "",
        "```python",
        *_call(model, form, file),
        "```",
    ]
    return lines


def _head(output: str) -> str:
    """Say what an output of the exported model is."""
    return HEADS.get(output.removeprefix("probabilities_"), "what counts")


def _call(model: AdaptedModel, form: str, file: Path) -> list[str]:
    pictures = len(model.input_shape) == 3
    name, kind = ("pictures", "uint8") if pictures else ("vectors", "float32")
    if form == "onnx":
        return [
            "import onnxruntime",
            f"session = onnxruntime.InferenceSession({_literal(file.name)})",
            f'probabilities = session.run(["probabilities"], {{"inputs": {name}}})[0]  # {name}: numpy {kind}',
        ]
    if form == "torch-export":
        return [
            "import torch",
            f"program = torch.export.load({_literal(file.name)}).module()",
            f"probabilities = program({name})[0]  # {name}: torch {kind}",
        ]
    return [
        "import fmtda",
        f"model = fmtda.AdaptedModel.load({_literal(file.name)})",
        f"prediction = model.predict({name})  # {name}: torch {kind}"
        + (f"; or: fmtda predict {shlex.quote(printable(file.name))} pictures/" if pictures else ""),
    ]


def _verdict(model: AdaptedModel, form: str) -> list[str]:
    if form == "safetensors" and model.mixture is not None:
        return ["- Whether an example looks like the domain at all, its mixture tells: `prediction.looks_like_domain`."]
    return ["- The mixture that tells whether an example looks like the domain is in `--format safetensors` alone."]
