"""The pictures show what the results hold, and labels don't touch."""

import itertools

import pytest
from matplotlib import pyplot
from matplotlib.text import Text

from fmtda.benchmarking.plots import accuracy_by_bytes, accuracy_by_method, accuracy_by_round, draw, without_overlap
from fmtda.benchmarking.tables import with_plain


@pytest.fixture
def results(cell_of, results_of):
    """Two federated methods with near figures, an ablation and a reference; two seeds."""
    cells = []
    for seed in (0, 1):
        cells += [
            cell_of("source-only", seed, 70.0 + seed, 80.0, up=500.0),
            cell_of("adabn", seed, 71.0, 80.0, up=500.0),
        ]
        cells += [cell_of("dualadapt", seed, 80.0, 90.0 + seed), cell_of("mcd", seed, 71.0, 79.0, up=None)]
        cells += [cell_of("paper+guard", seed, 60.0, 70.0)]
    return results_of(cells)


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    pyplot.close("all")


def test_labels_move_as_little_as_their_gap_asks():
    assert without_overlap([10.0, 30.0], 5.0) == [10.0, 30.0]
    assert without_overlap([10.0, 10.0], 5.0) == pytest.approx([7.5, 12.5])
    assert without_overlap([12.0, 10.0, 50.0], 5.0) == pytest.approx([13.5, 8.5, 50.0])


def test_bars_are_means_and_dots_are_seeds(results):
    main = [method for method in results["methods"] if method["group"] != "ablation"]
    figure = accuracy_by_method(results, main)
    svhn, usps, average = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["svhn", "usps", "average"]
    assert [bar.get_width() for bar in svhn.patches] == pytest.approx([70.5, 71.0, 80.0, 71.0])
    assert [bar.get_width() for bar in average.patches] == pytest.approx([75.25, 75.5, 85.25, 75.0])
    assert list(usps.lines[2].get_xdata()) == [90.0, 91.0]


def test_the_legend_fits_beside_few_panels(results):
    figure = accuracy_by_method(results, with_plain(results, results["methods"]))
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert len(figure.legends[0].get_texts()) == 5
    assert 0 <= legend.x0 and legend.x1 <= figure.bbox.x1 and legend.y1 <= figure.bbox.y1


def test_bytes_stand_on_a_logarithmic_axis_and_moved_data_at_the_right(results):
    (axes,) = accuracy_by_bytes(results, results["methods"]).axes
    assert axes.get_xscale() == "log"
    places = [container[0].get_xdata()[0] for container in axes.containers]
    by_method = dict(zip([method["name"] for method in results["methods"]], places, strict=True))
    assert by_method["source-only"] == 500.0 and by_method["dualadapt"] == 17_500.0
    assert by_method["mcd"] == max(places) > 1e5
    assert "data moved" in [label.get_text() for label in axes.get_xticklabels()]


def test_rounds_are_means_over_seeds_and_domains_and_references_are_level(results):
    main = [method for method in results["methods"] if method["group"] != "ablation"]
    (axes,) = accuracy_by_round(results, main).axes
    lines = dict(zip(["source-only", "adabn", "dualadapt", "mcd"], axes.lines, strict=True))
    # round 0: (20 + 40) / 2; round 2: dualadapt reaches 85 and 85.5
    assert list(lines["dualadapt"].get_ydata()) == pytest.approx([30.0, 57.625, 85.25])
    assert list(lines["mcd"].get_ydata()) == [75.0, 75.0]


@pytest.mark.parametrize("picture", [accuracy_by_bytes, accuracy_by_round])
def test_no_label_covers_another(results, picture):
    figure = picture(results, results["methods"])
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]  # without the line to the point
    assert len(boxes) == len(results["methods"])
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]


def test_equal_results_give_equal_files(results, tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    files = draw(results, tmp_path / "one")
    assert [file.name for file in files] == ["accuracy.svg", "ablation.svg", "bytes.svg", "rounds.svg"]
    draw(results, tmp_path / "other")
    assert all(file.read_bytes() == (tmp_path / "other" / file.name).read_bytes() for file in files)


def test_a_benchmark_without_any_result_draws_nothing(results, tmp_path):
    assert draw({**results, "cells": []}, tmp_path) == []
