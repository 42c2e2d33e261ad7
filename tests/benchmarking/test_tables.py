"""The table against figures worked out by hand."""

import math

import pytest

from fmtda.benchmarking.tables import markdown, shown_bytes, spread


def rows(text: str) -> dict[str, list[str]]:
    """The first table's rows by method."""
    table = text.split("## Ablation")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in cells}


def test_spread_is_the_mean_and_the_sample_standard_deviation():
    average, deviation = spread([80.0, 83.0, 89.0])
    assert average == pytest.approx(84.0)
    assert deviation == pytest.approx(math.sqrt((16 + 1 + 25) / 2))  # 4.58; over n it would be 3.74
    assert spread([80.0, None]) == (80.0, None)
    assert spread([None]) is None


def test_rows_hold_means_deviations_bytes_and_seconds(cell_of, results_of):
    cells = [cell_of("dualadapt", seed, svhn, 90.0) for seed, svhn in enumerate((80.0, 83.0, 89.0))]
    row = rows(markdown(results_of(cells)))["dualadapt"]
    # averages 85, 86.5, 89.5: mean 87, squares 4 + 0.25 + 6.25, deviation sqrt(5.25) = 2.29
    assert row == ["3", "84.0 ± 4.6", "90.0 ± 0.0", "87.0 ± 2.3", "17.5 kB", "2.88 MB", "0.50", "2.00"]


def test_one_seed_has_no_deviation_and_a_missing_method_shows_the_gap(cell_of, results_of):
    text = markdown(results_of([cell_of("dualadapt", 0, 80.0, 90.0)], ["fed-mcd", "dualadapt"]))
    assert rows(text)["dualadapt"][:4] == ["1", "80.0", "90.0", "85.0"]
    assert rows(text)["fed-mcd"] == ["-"] * 8


def test_a_failed_cell_is_named_and_the_other_seeds_count(cell_of, results_of):
    failed = {**cell_of("dualadapt", 1, 0.0, 0.0), "result": None, "failure": "exit status 3"}
    text = markdown(results_of([cell_of("dualadapt", 0, 80.0, 90.0), failed]))
    assert rows(text)["dualadapt"][0] == "1"
    assert "Not finished: dualadapt, seed 1 (exit status 3)." in text


def test_methods_that_break_privacy_bear_a_dagger_and_a_note(cell_of, results_of):
    text = markdown(results_of([cell_of("mcd", 0, 80.0, 90.0, up=None), cell_of("dualadapt", 0, 80.0, 90.0)]))
    assert rows(text)["mcd †"][4:7] == ["-", "-", "-"]
    assert "† breaks privacy" in text
    assert "†" not in markdown(results_of([cell_of("dualadapt", 0, 80.0, 90.0)]))


def test_plain_source_only_comes_from_the_runs_of_source_only(cell_of, results_of):
    text = markdown(results_of([cell_of("source-only", seed, 70.0, 80.0) for seed in (0, 1)]))
    # plain is (10, 30) and (11, 31)
    assert rows(text)["plain source-only"][:4] == ["2", "10.5 ± 0.7", "30.5 ± 0.7", "20.5 ± 0.7"]


def test_the_ablation_is_a_table_of_its_own_beside_the_presets(cell_of, results_of):
    cells = [cell_of(name, 0, 80.0, 90.0) for name in ("source-only", "dualadapt", "paper+guard")]
    main, ablation = markdown(results_of(cells)).split("## Ablation")
    assert "| paper+guard |" not in main
    assert "| paper+guard |" in ablation and "| dualadapt |" in ablation
    assert "| source-only |" not in ablation


def test_what_the_ablation_is_compared_with_has_its_seeds_alone(cell_of, results_of):
    cells = [cell_of("dualadapt", seed, svhn, 90.0) for seed, svhn in enumerate((80.0, 83.0, 89.0))]
    main, ablation = markdown(results_of([*cells, cell_of("paper+guard", 1, 20.0, 30.0)])).split("## Ablation")
    assert "| dualadapt | 3 | 84.0 ± 4.6 |" in main
    assert "| dualadapt | 1 | 83.0 | 90.0 |" in ablation and "| paper+guard | 1 | 20.0 | 30.0 |" in ablation


def test_segmentation_is_called_by_its_metric(cell_of, results_of):
    results = {**results_of([cell_of("dualadapt", 0, 40.0, 50.0)]), "metric": "mean-iou"}
    assert "mIoU in percent" in markdown(results)


@pytest.mark.parametrize(("count", "shown"), [(612, "612 B"), (17_500, "17.5 kB"), (2_880_000, "2.88 MB")])
def test_bytes_as_people_read_them(count, shown):
    assert shown_bytes(count) == shown
