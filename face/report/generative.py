"""Reports a run of a generative model: its loss, samples through the rounds, how good they are."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from fmtda.face.report.blocks import (
    COLOURS,
    GREY,
    Block,
    Figure,
    Figures,
    Gallery,
    GalleryPicture,
    ReportTable,
    Section,
    data_uri,
    enumerated,
    percent,
    plural,
    rounds_axis,
    shown_number,
)
from fmtda.face.report.runs import Run
from fmtda.face.run_files import own_file, read_quality
from fmtda.strategies.registry import algorithm

GRIDS = 6
"""Rounds whose samples are shown at most, evenly spread, the last among them."""

LARGEST_PICTURE = 1_500_000
"""Bytes; a larger drawing is left out, so that the page stays small."""

MEDIA_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}

DRAWN = {
    f"{{http://www.w3.org/2000/svg}}{name}"
    for name in ("svg", "g", "path", "rect", "circle", "ellipse", "line", "polyline", "polygon", "text", "tspan")
}
"""Elements of a drawing that is shown, beside those in RDKit's own namespace, which draw nothing."""


def sentence(run: Run) -> str:
    """Say what was trained and how well."""
    settings = run.generative_settings
    if not algorithm(settings.strategy).federated:
        how = "in one process on pooled data, no federation"
    else:
        how = f"by {settings.strategy} over {plural(settings.clients, 'client')}"
    domains = enumerated(settings.target_domains)
    what = domains if domains == settings.data.name else f"{domains} of {settings.data.name}"
    trained = (
        f"{settings.workload} learned {what} {how}: "
        f"{plural(run.lines[-1]['round'], 'round')} of {plural(settings.training.steps, 'gradient step')}."
    )
    reached = f" Its loss on held-out examples is {shown_number(run.average)}"
    quality = run.summary.get("quality") or {}
    if {"samples", "confident_share", "frechet_distance"} <= quality.keys():
        reached += (
            f"; of {quality['samples']} samples a judge takes {percent(100 * quality['confident_share'])} surely for "
            f"one class, at a Fréchet distance of {shown_number(quality['frechet_distance'])} in its features"
        )
    if {"samples", "valid", "unique", "novel"} <= quality.keys():
        reached += (
            f"; of {quality['samples']} samples {percent(quality['valid'])} are valid molecules, of these "
            f"{percent(quality['unique'])} unique, of these {percent(quality['novel'])} new"
        )
    return f"{trained}{reached}."


def sections(run: Run) -> list[Section]:
    """Show samples, their quality, properties of molecules, and the loss."""
    made = [_samples(run), _quality(run), _properties(run), _loss(run)]
    return [section for section in made if section]


def last_samples(run: Run) -> GalleryPicture | None:
    """Give the picture of the latest sample."""
    drawn = _drawn(run.path)
    return drawn[-1] if drawn else None


def _samples(run: Run) -> Section | None:
    drawn = _drawn(run.path)
    if not drawn:
        return None
    chosen = {round(i * (len(drawn) - 1) / max(1, GRIDS - 1)) for i in range(GRIDS)}
    molecules = drawn[-1].source.startswith("data:image/svg")
    text = "Drawn from the moving average of the model, each round anew."
    if molecules:
        text += " A place without a drawing holds a sample that is no valid molecule."
        galleries = [Gallery(drawn[-1].caption[0], [GalleryPicture(drawn[-1].source, drawn[-1].text)], "large")]
        earlier = [drawn[place] for place in sorted(chosen) if place < len(drawn) - 1][:2]
        galleries += [Gallery("earlier", earlier, "medium")] if earlier else []
    else:
        galleries = [Gallery("through the rounds", [drawn[place] for place in sorted(chosen)], "medium")]
    return Section("Samples", text, galleries)


def _drawn(path: Path) -> list[GalleryPicture]:
    """Give the pictures of all rounds that have one, in order."""
    return [
        GalleryPicture(data_uri(content, MEDIA_TYPES[suffix]), f"samples of round {after}", [f"round {after}"])
        for after, name, suffix in _files_of_rounds(path)
        if suffix in MEDIA_TYPES
        and (file := own_file(path, name)) is not None
        and file.stat().st_size <= LARGEST_PICTURE
        and _is_picture(content := file.read_bytes(), suffix)
    ]


def _files_of_rounds(path: Path) -> list[tuple[int, str, str]]:
    """The rounds that files of samples/ are called by, with the files' names and endings."""
    found = (re.fullmatch(r"round-([0-9]{1,9})(\.[a-z]+)", file.name) for file in path.glob("samples/round-*"))
    return sorted((int(match[1]), f"samples/{match[0]}", match[2]) for match in found if match)


def _is_picture(content: bytes, suffix: str) -> bool:
    """Whether it is what its ending says, and draws alone: an SVG may hold scripts, for who opens it by itself."""
    if suffix == ".png":
        return content.startswith(b"\x89PNG\r\n\x1a\n")
    try:
        elements = list(ElementTree.fromstring(content).iter())
    except (ElementTree.ParseError, ValueError, LookupError):
        return False
    names = {name.rpartition("}")[2].lower() for element in elements for name in element.attrib}
    plain = not any(name.startswith("on") or name in ("href", "src") for name in names)
    return plain and all(e.tag in DRAWN or str(e.tag).startswith("{http://www.rdkit.org/xml}") for e in elements)


def _quality(run: Run) -> Section | None:
    measured = []
    for after, name, suffix in _files_of_rounds(run.path):
        if suffix == ".json":
            measured.append((after, read_quality(run.path, name, run.left_out)))
    quality = run.summary.get("quality") or {}
    blocks: list[Block] = []
    figures = []
    for key, (title, factor) in CURVES.items():
        points = [(after, factor * figure[key]) for after, figure in measured if figure.get(key) is not None]
        if len(points) > 1:
            figures.append(_course(title, points))
    if figures:
        blocks.append(Figures(figures, "third"))
    if "class_shares" in quality:
        names = run.settings.class_names
        bars = {
            "type": "bar",
            "x": list(names),
            "y": [round(100 * share, 1) for share in quality["class_shares"]],
            "marker": {"color": COLOURS[0]},
            "hovertemplate": "%{x}: %{y} %<extra></extra>",
        }
        layout = {"xaxis": {"type": "category"}, "yaxis": {"title": {"text": "% of samples"}}}
        blocks.append(Figures([Figure([bars], layout, "classes of the final samples, by the judge", 280)], "half"))
    rows = [
        [name.replace("_", " "), shown_number(value)]
        for name, value in quality.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    mended = quality.get("with_valency_correction") or {}
    if mended:
        rows = [
            [name.replace("_", " "), shown_number(value), shown_number(mended.get(name))]
            for name, value in quality.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and name in mended
        ]
        blocks.append(ReportTable(["at the end", "as drawn", "valencies corrected"], rows))
    elif rows:
        blocks.append(ReportTable(["at the end", "value"], rows))
    if not blocks:
        return None
    text = (
        "Shares in percent, of the samples; unique of the valid ones, novel of the unique ones."
        if "valid" in quality
        else "By a small classifier trained on the same real pictures. Its Fréchet distance is no Inception FID: it "
        "compares models judged by it on equally many pictures, and nothing else."
    )
    if figures:
        text += f" The curves are of the {run.generative_settings.samples.count} samples that are drawn in a round."
    return Section("Quality", text, blocks)


CURVES = {
    "frechet_distance": ("Fréchet distance", 1),
    "confident_share": ("surely one class, %", 100),
    "valid": ("valid, %", 1),
    "unique": ("unique of the valid, %", 1),
    "novel": ("novel of the unique, %", 1),
}


def _course(title: str, points: Sequence[tuple[int, float]]) -> Figure:
    trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [after for after, _ in points],
        "y": [round(value, 4) for _, value in points],
        "line": {"color": COLOURS[0]},
        "hovertemplate": "round %{x}: %{y:.4g}<extra></extra>",
    }
    return Figure([trace], {"xaxis": rounds_axis(points[-1][0]), "yaxis": {"rangemode": "tozero"}}, title, 260)


def _properties(run: Run) -> Section | None:
    quality = run.summary.get("quality") or {}
    figures = []
    for name, histogram in quality.get("histograms", {}).items():
        edges = histogram["edges"]
        middles = [(low + high) / 2 for low, high in zip(edges, edges[1:], strict=False)]
        traces = [
            {
                "type": "scatter",
                "mode": "lines",
                "line": {"shape": "hvh", "color": colour},
                "name": label,
                "x": [round(middle, 4) for middle in middles],
                "y": [round(100 * share, 2) for share in histogram[of]],
                "hovertemplate": "%{fullData.name}, %{x:.4g}: %{y:.1f} %<extra></extra>",
            }
            for of, label, colour in (("training", "training data", GREY), ("sampled", "samples", COLOURS[5]))
        ]
        figures.append(Figure(traces, {"yaxis": {"title": {"text": "%"}, "rangemode": "tozero"}}, name, 250))
    if not figures:
        return None
    between, apart = quality.get("wasserstein_half_to_half", {}), quality.get("wasserstein", {})
    rows = [[name, shown_number(value), shown_number(between.get(name))] for name, value in apart.items()]
    table = ReportTable(
        ["Wasserstein distance", "samples to training data", "half of the training data to the other"], rows
    )
    text = "Valid samples against training data, each as a share of its molecules, or of its rings."
    return Section("Properties", text, [Figures(figures, "third"), table])


def logarithmic(values: Sequence[float]) -> dict[str, Any]:
    """Make a logarithmic axis, ticks at 1, 2 and 5 of each decade; a plain one where values are near each other."""
    if min(values) <= 0 or max(values) < 5 * min(values):
        return {}
    decades = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)
    ticks = [float(f"{step}e{decade}") for decade in decades for step in (1, 2, 5)]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _loss(run: Run) -> Section:
    courses: dict[str, list[tuple[int, float]]] = {}
    for line in run.evaluated:
        for domain, value in line["loss"].items():
            courses.setdefault(domain, []).append((line["round"], value))
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": f"{domain}, held out",
            "x": [after for after, _ in points],
            "y": [float(f"{value:.5g}") for _, value in points],
            "line": {"color": COLOURS[i % len(COLOURS)]},
            "hovertemplate": "%{fullData.name}, round %{x}: %{y:.4g}<extra></extra>",
        }
        for i, (domain, points) in enumerate(courses.items())
    ]
    trained = [(line["round"], line["train"]["loss"]) for line in run.rounds if "loss" in line["train"]]
    if trained:
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "training",
                "x": [after for after, _ in trained],
                "y": [float(f"{value:.5g}") for _, value in trained],
                "line": {"color": GREY, "dash": "dot"},
                "hovertemplate": "training, round %{x}: %{y:.4g}<extra></extra>",
            }
        )
    values = [value for points in courses.values() for _, value in points]
    axis = {"title": {"text": "loss"}, **(logarithmic(values) if values else {})}
    layout = {"xaxis": rounds_axis(run.lines[-1]["round"]), "yaxis": axis}
    text = "Held out: of the moving average, over the clients' test examples. Training: of the clients, as they train."
    return Section("Loss by round", text, [Figures([Figure(traces, layout, height=320)], "whole")])
