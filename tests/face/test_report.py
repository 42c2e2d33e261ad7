"""``report.html``: it says what the run directory holds, in one file, and shows nothing that nobody agreed to show."""

import json
import re
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest
from invoked import invoke, refused
from real_runs import SMALL_FLOW, TINY_SETTINGS, words_of

from fmtda.face.report.comparison import names_of
from fmtda.face.report.page import rendered
from fmtda.face.report.runs import OPTIONS, Run
from fmtda.protocol.illustration import PICTURES
from fmtda.server.illustration import FILE, read_illustration

ROOT = Path(__file__).parents[2]
DOMAINS = ["blend", "fonts", "pen", "street"]


def figures_in(page: str) -> list[dict]:
    (text,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def words_in(page: str) -> str:
    """What a reader sees as text."""
    return " ".join(re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL).split())


def titled(page: str, title: str) -> list[dict]:
    """The figures under a heading of theirs."""
    numbers = re.findall(rf'<h3>{re.escape(title)}</h3><div class="plot" data-figure="(\d+)"', page)
    figures = figures_in(page)
    return [figures[int(number)] for number in numbers]


@pytest.fixture(scope="module")
def page(finished) -> str:
    return (finished[0] / "report.html").read_text()


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished[0], tmp_path / "copied"))


def test_a_simulation_ends_with_its_report_and_the_line_that_makes_it_again(finished):
    run, printed = finished
    assert f"report: {run / 'report.html'}" in printed
    assert f"look at it with: fmtda report {run}" in printed


def test_the_first_sentence_says_what_was_trained_and_how_well(finished, page):
    summary = json.loads((finished[0] / "summary.json").read_text())
    start = sum(summary["source_only"].values()) / 4
    text = words_in(page)
    assert "adapted a small-cnn network from handwritten to blend, fonts, street and pen over 4 clients" in text
    assert f"reached {summary['average_accuracy']:.1f} % accuracy on average" in text
    assert f"the pre-trained network's {start:.1f} %" in text.replace("&#39;", "'")


def test_accuracy_and_confusion_are_those_of_the_summary(finished, page):
    summary = json.loads((finished[0] / "summary.json").read_text())
    bars = {trace["name"]: dict(zip(trace["x"], trace["y"], strict=True)) for trace in figures_in(page)[0]["data"]}
    assert bars["adapted"].pop("average") == pytest.approx(summary["average_accuracy"])
    for name, key in (
        ("adapted", "accuracy"),
        ("source-only", "source_only"),
        ("plain source-only", "plain_source_only"),
    ):
        assert {d: bars[name][d] for d in DOMAINS} == pytest.approx(summary[key])
    for domain in DOMAINS:
        (after,) = titled(page, f"{domain}, adapted")
        cells = [count for row in after["data"][0]["customdata"] for count in row]
        assert cells == summary["confusion"][domain]
        assert [sum(row) for row in after["data"][0]["z"]] == pytest.approx([100] * 10, abs=0.6)
        assert titled(page, f"{domain}, source-only")


def test_courses_are_drawn_for_every_head(finished, page):
    summary = json.loads((finished[0] / "summary.json").read_text())
    for domain in DOMAINS:
        courses = {trace["name"]: trace for trace in titled(page, domain)[0]["data"]}
        assert set(courses) == {"F_g", "F_l", "mean of both", "with own copy"}
        assert courses["F_g"]["x"] == [0, 1, 2] and courses["F_l"]["x"] == [1, 2]
        assert courses["with own copy"]["y"] == [summary["accuracy_by_head"][domain]["personal"]]


def test_the_map_and_the_weights_show_every_domain(finished, page):
    shown = read_illustration(finished[0])
    for title in ("source-only, by domain", "adapted, by domain"):
        clouds = {trace["name"]: len(trace["x"]) for trace in titled(page, title)[0]["data"]}
        assert clouds == {domain: len(arrays["classes"]) for domain, arrays in shown.arrays.items()}
    assert len(clouds) == 5
    classes = {trace["name"] for trace in titled(page, "adapted, by class")[0]["data"]}
    assert classes == set("0123456789")
    for trace in titled(page, "in the last round")[0]["data"]:
        assert sum(trace["y"]) == pytest.approx(100, abs=0.1)


def test_pictures_say_whether_they_are_right(finished, page):
    shown = read_illustration(finished[0])
    right = wrong = 0
    for domain in DOMAINS:
        arrays = shown.arrays[domain]
        hits = int((arrays["predicted-after"] == arrays["labels"]).sum())
        right, wrong = right + hits, wrong + PICTURES - hits
    assert page.count('<figure class="right">') == right
    assert page.count('<figure class="wrong">') == wrong
    assert page.count('<img src="data:image/png;base64,') == 4 * PICTURES


def test_configuration_versions_and_a_command_that_makes_the_same_settings(finished, page):
    from fmtda.server.startup import effective_settings

    run = Run.read(finished[0])
    text = words_in(page)
    for key, value in run.settings.flat().items():
        if key != "output":
            assert f"{key} {str(value).lower() if isinstance(value, bool) else value}" in text
    assert f"torch {run.versions['torch']}" in text
    words = shlex.split(run.command)
    given = _given(words[2:])
    again = effective_settings(given).flat()
    ours = run.settings.flat()
    assert {k: v for k, v in again.items() if k != "output"} == {k: v for k, v in ours.items() if k != "output"}


def _given(words: list[str]) -> dict[str, str]:
    pairs, keys = zip(words[::2], words[1::2], strict=True), {option: key for key, option in OPTIONS.items()}
    return dict(value.split("=", 1) if word == "-c" else (keys[word], value) for word, value in pairs)


def test_the_file_needs_nothing_from_outside(page):
    markup = re.sub(r"(<script[^>]*>).*?(</script>)", r"\1\2", page, flags=re.DOTALL)
    assert not re.search(r'(src|href)="(?!data:|#)', markup)
    assert "@import" not in markup and "url(" not in markup
    assert markup.count("<script>") == 2, "plotly, once, and what draws the figures with it"
    assert len(page.encode()) < 10e6


def test_equal_runs_give_equal_figures(finished, page):
    assert figures_in(rendered([finished[0]])) == figures_in(page)


def test_without_anybodys_consent_nothing_of_a_client_is_shown(copied):
    (copied / FILE).unlink()
    page = rendered([copied])
    assert '<img src="data:image' not in page
    assert "Map of the features" not in page and "Examples" not in page
    assert titled(page, "blend, adapted"), "what clients counted is still there"


def test_a_run_under_way_is_shown_as_far_as_it_is(copied):
    (copied / "summary.json").unlink()
    lines = (copied / "metrics.jsonl").read_text().splitlines()
    (copied / "metrics.jsonl").write_text("\n".join(lines[:2]) + "\n")
    assert "The run is not finished: 1 of 2 rounds." in words_in(rendered([copied]))
    (copied / "metrics.jsonl").write_text(lines[0] + "\n")
    assert "The run is not finished: 0 of 2 rounds." in words_in(rendered([copied]))
    (copied / "metrics.jsonl").unlink()
    assert "measured nothing yet" in refused("report", copied)


def test_clients_without_labels_have_a_report(copied):
    lines = [json.loads(text) for text in (copied / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line |= {"accuracy": {}, "confusion": {}}
    lines[0] |= {"source_only": {}, "plain_source_only": {}}
    (copied / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "The clients have no labels, so there is no accuracy." in words_in(rendered([copied]))


def test_names_with_markup_stay_text(copied):
    config = (copied / "config.toml").read_text()
    (copied / "config.toml").write_text(config.replace('"0,1,2,', '"</script><b>x</b>,1,2,'))
    page = rendered([copied])
    assert "<b>x</b>" not in page
    assert len(figures_in(page)) > 10


def test_several_runs_stand_side_by_side(finished, copied, tmp_path):
    lines = [json.loads(text) for text in (copied / "metrics.jsonl").read_text().splitlines()]
    for heads in lines[-1]["accuracy"].values():
        heads["personal"] = 99.0
    (copied / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = (copied / "config.toml").read_text()
    (copied / "config.toml").write_text(config.replace("client-steps = 6", "client-steps = 7"))
    result = invoke("report", finished[0], copied, "--output", tmp_path / "both.html")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "both.html").read_text()
    text = words_in(page)
    assert "2 runs side by side; copied is best on average over its targets, with 99.0 %" in text
    assert "dualadapt.client-steps 6 7" in text
    assert [trace["name"] for trace in figures_in(page)[0]["data"]] == ["run", "copied"]


def test_pictures_through_the_rounds(generated, finished, tmp_path):
    run, printed = generated
    assert f"report: {run / 'report.html'}" in printed
    page = (run / "report.html").read_text()
    text = words_in(page)
    assert "ddpm learned handwritten of digits by fedavg over 2 clients: 2 rounds of 2 gradient steps." in text
    assert page.count('<img src="data:image/png;base64,') == len(list((run / "samples").glob("round-*.png")))
    summary = json.loads((run / "summary.json").read_text())
    (loss,) = (figure for figure in figures_in(page) if figure["data"][0].get("name") == "handwritten, held out")
    assert loss["data"][0]["y"][-1] == pytest.approx(summary["average_loss"], rel=1e-4)
    assert invoke("report", run, finished[0], "--output", tmp_path / "mixed.html").exit_code == 0


def test_quality_is_a_curve_where_it_was_measured_through_the_rounds(tmp_path):
    few = words_of({**TINY_SETTINGS, "samples.every": 1, "samples.quality": 20})
    options = ("--local", *few, "--rounds", 2)
    result = invoke("generate", "ddpm", *options, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "run" / "report.html").read_text()
    (curve,) = titled(page, "Fréchet distance")
    assert curve["data"][0]["x"] == [1, 2]
    (shares,) = titled(page, "classes of the final samples, by the judge")
    assert sum(shares["data"][0]["y"]) == pytest.approx(100, abs=1)


def test_molecules_are_drawn_with_their_properties(tmp_path):
    (tmp_path / "qm9.csv").write_text("smiles\n" + "CCO\nC1CC1\nCC=O\nCCN\nCO\nCCC\nCCF\nOCC=O\nCNC\nCOC\n" * 3)
    options = ("--data", "qm9", "--data-dir", tmp_path, "--local", "--rounds", 1, *SMALL_FLOW)
    result = invoke("generate", "graph-nvp", *options, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count('<img src="data:image/svg+xml;base64,') == 1
    (carbons,) = titled(page, "C atoms")
    assert sum(carbons["data"][0]["y"]) == pytest.approx(100, abs=0.1)
    assert "are valid molecules" in words_in(page)


@pytest.fixture(scope="module")
def benchmark_page() -> str:
    return rendered([ROOT / "benchmarks" / "results" / "digit-five"])


def test_a_benchmark_shows_its_table(benchmark_page):
    results = json.loads((ROOT / "benchmarks" / "results" / "digit-five" / "results.json").read_text())
    text = words_in(benchmark_page)
    by_method: dict[str, list[dict]] = {}
    for cell in results["cells"]:
        if cell["result"]:
            by_method.setdefault(cell["method"], []).append(cell["result"])
    for method, reached in by_method.items():
        columns = [[seed["accuracy"][domain] for seed in reached] for domain in results["domains"]]
        columns.append([seed["average_accuracy"] for seed in reached])
        row = " ".join(rf"{mean(column):.1f}(?: ± [\d.]+)?" for column in columns)
        assert re.search(rf"{re.escape(method)}(?: †)? {len(reached)} {row}", text), method
    ablation = {method["name"] for method in results["methods"] if method["group"] == "ablation"}
    main, alone_or_left_out = (titled(benchmark_page, "average")[place]["data"][0]["y"] for place in (0, 1))
    assert len(main) == 1 + len(by_method.keys() - ablation) and main[0] == "plain source-only"
    assert ablation < set(alone_or_left_out) and len(ablation) == 14


def test_a_benchmark_is_reported_alone(finished):
    folder = ROOT / "benchmarks" / "results" / "digit-five"
    assert "report it alone" in refused("report", finished[0], folder)


def test_runs_of_one_name_are_told_apart(finished, tmp_path):
    places = [tmp_path / method / "seed-0" / "run" for method in ("adabn", "dualadapt")]
    for place in places:
        shutil.copytree(finished[0], place)
    assert names_of([Run.read(place) for place in places]) == ["adabn/seed-0/run", "dualadapt/seed-0/run"]


def test_a_blank_in_a_name_is_quoted_in_the_command(finished):
    run = Run.read(finished[0])
    renamed = replace(run, settings=run.settings.changed({"data.source": "Real World"}))
    assert "--source 'Real World'" in renamed.command


def test_results_of_another_program_are_refused(tmp_path):
    for text in ('{"cells": {}}', "[]", "{", '{"models": {}}'):
        (tmp_path / "results.json").write_text(text)
        assert "is not of fmtda benchmark" in refused("report", tmp_path)


def test_what_is_no_run_is_refused(tmp_path, finished):
    assert "there is no such folder" in refused("report", tmp_path / "nowhere")
    assert "no run here" in refused("report", tmp_path)
    assert "no file can be written there" in refused("report", finished[0], "--output", tmp_path)


def test_without_the_extra_the_command_names_the_line_that_installs_it(copied, monkeypatch, capsys):
    from rich.console import Console

    from fmtda.face.report.command import end_with_report

    monkeypatch.setitem(sys.modules, "plotly", None)
    assert "a report needs plotly, not installed here; install the extra: pip install" in refused("report", copied)
    end_with_report(Console(), copied)
    assert "no report: its packages are not installed" in capsys.readouterr().out
