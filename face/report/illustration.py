"""Reports what clients agreed to show: a map of the features before and after adaptation, pictures with predictions.

Our choice: how many principal components t-SNE starts from, and how many steps it takes.
"""

import warnings

import numpy as np

from fmtda.face.report.blocks import (
    CLASS_COLOURS,
    COLOURS,
    GREY,
    Figure,
    Figures,
    Gallery,
    GalleryPicture,
    Section,
    enumerated,
    png,
)
from fmtda.face.report.runs import Run
from fmtda.server.illustration import Illustration

COMPONENTS = 30
"""Principal components that t-SNE starts from."""

LISTED_CLASSES = 20
"""Classes up to which a map has a legend of them."""

UNKNOWN = "unknown"


def sections(run: Run) -> list[Section]:
    """Show the map and the pictures; nothing where nobody agreed to show anything."""
    if run.illustration is None:
        return []
    made = [_map(run, run.illustration), _pictures(run, run.illustration)]
    return [section for section in made if section]


def embedded(features: np.ndarray, seed: int) -> np.ndarray:
    """Bring features (N, D) to points (N, 2) by t-SNE on their principal components; equal seeds give equal points."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    features = features.astype(np.float64)
    # Features that are all equal, as of a collapsed network, have no principal component.
    if len(features) < 8 or np.ptp(features, axis=0).max() == 0:
        return np.zeros((len(features), 2))
    components = min(COMPONENTS, *features.shape)
    # One thread: beside another busy process, scikit-learn's threads wait for each other eight times as long.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        reduced = PCA(components, svd_solver="full").fit_transform(features)
        perplexity = min(30.0, (len(features) - 1) / 3)
        return TSNE(2, perplexity=perplexity, max_iter=400, random_state=seed % 2**31, init="pca").fit_transform(
            reduced
        )


def _map(run: Run, shown: Illustration) -> Section | None:
    domains = [domain for domain, arrays in shown.arrays.items() if len(arrays.get("classes", ()))]
    if not domains:
        return None
    owner = np.concatenate([np.full(len(shown.arrays[domain]["classes"]), i) for i, domain in enumerate(domains)])
    classes = np.concatenate([shown.arrays[domain]["classes"] for domain in domains])
    figures = []
    for when in ("before", "after"):
        features = np.concatenate([shown.arrays[domain][f"features-{when}"] for domain in domains])
        points = np.round(np.nan_to_num(embedded(features, run.settings.seed)), 2)
        title, source = "source-only" if when == "before" else "adapted", run.adaptation_settings.data.source
        figures.append(
            Figure(
                _by_domain(points, owner, domains, source),
                AXES,
                f"{title}, by domain",
                420,
            )
        )
        figures.append(Figure(_by_class(points, owner, classes, domains, run), AXES, f"{title}, by class", 420))
    text = (
        f"Features G(x) of the source's hold-out and of test examples of {enumerated(shown.clients)}, brought to two "
        "dimensions by t-SNE: near points have similar features, distances between groups mean little. Adapted, each "
        "target's features come from the G that its client has in the end. Crosses are the source."
    )
    return Section("Map of the features", text, [Figures(figures, "half")])


NO_TICKS = {"showticklabels": False, "showgrid": False, "zeroline": False, "title": {"text": ""}}
AXES = {"xaxis": NO_TICKS, "yaxis": NO_TICKS}


def _by_domain(points: np.ndarray, owner: np.ndarray, domains: list[str], source: str) -> list[dict]:
    return [
        _cloud(points[owner == i], domain, GREY if domain == source else COLOURS[i % len(COLOURS)], domain == source)
        for i, domain in enumerate(domains)
    ]


def _by_class(points: np.ndarray, owner: np.ndarray, classes: np.ndarray, domains: list[str], run: Run) -> list[dict]:
    names = run.settings.class_names
    of_source = np.array([domain == run.adaptation_settings.data.source for domain in domains])[owner]
    clouds = []
    for each in np.unique(classes).tolist():
        name = names[each] if each >= 0 else UNKNOWN
        colour = CLASS_COLOURS[each % len(CLASS_COLOURS)] if each >= 0 else GREY
        for source in (True, False):
            here = (classes == each) & (of_source == source)
            if here.any():
                cloud = _cloud(points[here], name, colour, source)
                cloud |= {"legendgroup": name, "showlegend": not source and len(names) <= LISTED_CLASSES}
                cloud["text"] = [domains[i] for i in owner[here].tolist()]
                cloud["hovertemplate"] = "%{fullData.name}, %{text}<extra></extra>"
                clouds.append(cloud)
    return clouds


def _cloud(points: np.ndarray, name: str, colour: str, source: bool) -> dict:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": points[:, 0].tolist(),
        "y": points[:, 1].tolist(),
        "marker": {"size": 6, "color": colour, "opacity": 0.75, "symbol": "x-thin-open" if source else "circle"},
        "hovertemplate": "%{fullData.name}<extra></extra>",
    }


def _pictures(run: Run, shown: Illustration) -> Section | None:
    galleries = []
    for domain, arrays in shown.arrays.items():
        if "pictures" not in arrays or not len(arrays["pictures"]):
            continue
        maps = arrays["predicted-after"].ndim > 1
        pictures = [
            _overlay(arrays, i) if maps else _with_prediction(arrays, i, run) for i in range(len(arrays["pictures"]))
        ]
        galleries.append(Gallery(domain, pictures, "wide" if maps else "small"))
    if not galleries:
        return None
    maps = galleries[0].size == "wide"
    text = (
        "Test pictures drawn by the seed, not chosen: the picture, what was predicted, and the true classes."
        if maps
        else "Test pictures drawn by the seed, not chosen: what the adapted client says and how sure it is; below, "
        "what the pre-trained network said. A green frame is right, a red one wrong."
    )
    return Section("Examples", text, galleries)


def _with_prediction(arrays: dict[str, np.ndarray], i: int, run: Run) -> GalleryPicture:
    names = run.settings.class_names
    label, after, before = (int(arrays[key][i]) for key in ("labels", "predicted-after", "predicted-before"))
    sure, earlier = (100 * float(arrays[f"confidence-{when}"][i]) for when in ("after", "before"))
    state = "" if label < 0 else "right" if label == after else "wrong"
    mark = {"right": "✓ ", "wrong": "✗ ", "": ""}[state]
    captions = [f"{mark}{names[after]}, {sure:.0f} %", f"before: {names[before]}, {earlier:.0f} %"]
    if state == "wrong":
        captions.append(f"it is {names[label]}")
    pixels = np.moveaxis(arrays["pictures"][i], 0, -1)
    return GalleryPicture(png(pixels), f"predicted {names[after]}{', ' + state if state else ''}", captions, state)


def _overlay(arrays: dict[str, np.ndarray], i: int) -> GalleryPicture:
    """Lay picture, prediction and truth side by side."""
    picture = np.moveaxis(arrays["pictures"][i], 0, -1)
    predicted, labels = arrays["predicted-after"][i], arrays["labels"][i]
    panels, captions = (
        [picture, _coloured(picture, predicted)],
        [f"sure by {100 * float(arrays['confidence-after'][i]):.0f} %"],
    )
    if labels.ndim == 2 and (labels >= 0).any():
        panels.append(_coloured(picture, labels))
        known = labels >= 0
        after, before = (100 * (arrays[f"predicted-{w}"][i] == labels)[known].mean() for w in ("after", "before"))
        captions.insert(0, f"{after:.0f} % of pixels right, before {before:.0f} %")
    return GalleryPicture(png(np.concatenate(panels, axis=1)), "picture, prediction, truth", captions)


def _coloured(picture: np.ndarray, classes: np.ndarray) -> np.ndarray:
    palette = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in CLASS_COLOURS])
    colours = np.where((classes >= 0)[..., None], palette[classes % len(palette)], picture)
    return (0.3 * picture + 0.7 * colours).astype(np.uint8)
