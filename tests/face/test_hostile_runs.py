"""Run directories that somebody else made: the report shows their text as text, and leaves out what is damaged."""

import json
import math
import random
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hostile_texts import harmless, hostile, retold
from invoked import invoke, refused
from test_report import figures_in, words_in

from fmtda.face.report.generative import last_samples
from fmtda.face.report.page import rendered
from fmtda.face.report.runs import Run
from fmtda.protocol.printable import printable
from fmtda.protocol.tables import SettingsError

ROOT = Path(__file__).parents[2]
PAGES = 9
"""Of 31 texts each."""

OURS = ("hovertemplate", "texttemplate")
"""What is plotly's markup in a figure."""

VALUES = (
    *(None, [], {}, "x", math.nan, math.inf, -math.inf, 2**62, 2**64, 10**400, -1, 1e308, 1e-320, True, [1, 2], [[]]),
    *({"a": 1}, "<img src=x>", "\ud800", {"\ud800": 1}, {"": 2}, "x" * 5000, {"__proto__": {"up": 1}}, [None] * 5, 0.5),
)
KEYS = ("<b>x", "__proto__", "constructor", "a/b", "\ud800", "", "x" * 300, "\x1b[31m", "global")


class Elements(HTMLParser):
    """What a page is made of: elements with their attributes' names, without `class`, and the text between."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, ...]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, *sorted(name for name, _ in attrs if name != "class")))

    def handle_endtag(self, tag: str) -> None:
        self.tags.append((f"/{tag}",))

    def handle_data(self, data: str) -> None:
        self.text += data


def texts_in(figure: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a figure with its key."""
    if isinstance(figure, dict):
        for name, value in figure.items():
            yield from texts_in(value, name)
    elif isinstance(figure, list):
        for value in figure:
            yield from texts_in(value, key)
    elif isinstance(figure, str):
        yield key, figure


@pytest.fixture
def copied(adapted, tmp_path) -> Path:
    skipped = shutil.ignore_patterns("clients", "checkpoints", "uploads", "tensorboard", "illustration*")
    return Path(shutil.copytree(adapted, tmp_path / "copied", ignore=skipped))


@pytest.mark.parametrize("seed", range(PAGES))
def test_text_of_anybody_makes_no_element_and_no_markup_of_plotly(seed, adapted, tmp_path):
    pages = []
    for name, texts in (("hostile", hostile(seed)), ("harmless", harmless())):
        told = retold(adapted, tmp_path / name, texts, pictures=seed == 0)
        page = rendered([tmp_path / name])
        elements = Elements(page)
        for text in told:
            assert printable(text, 20_000) in elements.text, "it is shown, and as it is"
        assert not set("\x00\x07\x1b\x7f\x9b\u2028\u202e\ud800") & set(page)
        pages.append((page, elements.tags))
    (page, tags), (usual, usual_tags) = pages
    assert tags == usual_tags
    assert page.count("Content-Security-Policy") == 1 and page.endswith("</html>")
    assert len(figures_in(page)) == len(figures_in(usual)) > 5
    drawn = [list(texts_in(figures)) for figures in (figures_in(page), figures_in(usual))]
    assert [key for key, _ in drawn[0]] == [key for key, _ in drawn[1]]
    for (key, text), (_, other) in zip(*drawn, strict=True):
        assert text == other if key in OURS else "<" not in text


def test_a_text_that_names_a_part_of_the_template_stays_a_text(copied):
    metrics = copied / "metrics.jsonl"
    name = "PLOTLY_FIGURES<img src=x onerror=alert(1)>PLOTLY_LIBRARY<!--<script>{{ library }}"
    metrics.write_text(metrics.read_text().replace("pen/0000", f"{name}/0000"))
    page = rendered([copied])
    assert f"{name}/0000" in Elements(page).text
    assert page.count("<img src=x") == 0 and page.count("<!--<script>") == 0


@pytest.mark.parametrize("value", ["[1, 2]", "-3", "NaN", "Infinity", '"many"', "null", "1e400", "[]", "{}"])
@pytest.mark.parametrize("key", ["num-examples", "source-typicality"])
def test_a_damaged_metric_is_left_out_and_named(key, value, copied):
    file = copied / "metrics.jsonl"
    lines = [json.loads(text) for text in file.read_text().splitlines()]
    lines[1]["clients"]["pen/0000"]["train"][key] = "PUT HERE"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines).replace('"PUT HERE"', value))
    text = words_in(rendered([copied]))
    assert "1 part of these files can't be used and is left out." in text.replace("&#39;", "'")
    assert f"metrics.jsonl, line 2.clients.pen/0000.train.{key}:" in text
    assert "Weights w_S" in text, "the other client's is there"


def test_a_missing_count_and_a_huge_one_leave_a_report(copied):
    file = copied / "metrics.jsonl"
    lines = [json.loads(text) for text in file.read_text().splitlines()]
    del lines[1]["clients"]["pen/0000"]["train"]["num-examples"]
    lines[1]["clients"]["blend/0000"]["train"]["num-examples"] = 2**62
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = rendered([copied])
    (weights,) = (f for f in figures_in(page) if f["layout"]["yaxis"].get("title") == {"text": "mean w_S"})
    assert [trace["name"] for trace in weights["data"]] == ["blend"]
    assert "left out" not in words_in(page)


def test_a_run_of_ours_leaves_nothing_out(adapted):
    assert Run.read(adapted).left_out == []


def places_in(value: Any, place: tuple = ()) -> list[tuple]:
    inner = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    return ([place] if place else []) + [each for key, one in inner for each in places_in(one, (*place, key))]


def spoiled(value: Any, draws: random.Random) -> Any:
    """The value with up to three of its parts taken out, renamed or replaced."""
    for _ in range(draws.randint(1, 3)):
        if not (places := places_in(value)):
            return draws.choice(VALUES)
        *way, last = draws.choice(places)
        holder = value
        for key in way:
            holder = holder[key]
        what = draws.random()
        if isinstance(holder, dict) and what < 0.4:
            part = holder.pop(last)
            holder |= {draws.choice(KEYS): part} if what < 0.2 else {}
        else:
            holder[last] = draws.choice(VALUES)
    return value


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_run_has_a_whole_page_or_is_refused_in_a_line(seed, copied):
    draws = random.Random(seed)
    file = copied / "metrics.jsonl"
    lines = [json.loads(text) for text in file.read_text().splitlines()]
    place = draws.randrange(len(lines))
    lines[place] = spoiled(lines[place], draws)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = json.loads((copied / "summary.json").read_text())
    (copied / "summary.json").write_text(json.dumps(spoiled(summary, draws)))
    _whole_or_refused(copied)


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_benchmark_has_a_whole_page_or_is_refused_in_a_line(seed, tmp_path):
    results = json.loads((ROOT / "benchmarks" / "results" / "digit-five" / "results.json").read_text())
    (tmp_path / "results.json").write_text(json.dumps(spoiled(results, random.Random(seed))))
    _whole_or_refused(tmp_path)


def _whole_or_refused(folder: Path) -> None:
    try:
        page = rendered([folder])
    except SettingsError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert page.endswith("</html>")
        assert len(figures_in(page)) == page.count('class="plot"')


def test_files_that_are_none_are_refused_or_left_out(copied):
    metrics, whole = copied / "metrics.jsonl", (copied / "metrics.jsonl").read_bytes()
    metrics.write_bytes(b"\xff\xfe{\n" + b"[" * 100_000 + b"\n" + whole)
    assert "2 parts of these files" in words_in(rendered([copied]))
    metrics.write_bytes(b"[1, 2]\n")
    assert "nothing in metrics.jsonl can be used" in refused("report", copied)
    metrics.unlink()
    metrics.mkdir()
    assert "measured nothing yet" in refused("report", copied)
    (copied / "config.toml").write_text("settings = " + "[" * 5000)
    assert "no run here" in refused("report", copied)


def test_what_a_link_leads_to_is_not_shown(copied, tmp_path):
    outside = tmp_path / "secret.jsonl"
    shutil.move(copied / "metrics.jsonl", outside)
    (copied / "metrics.jsonl").symlink_to(outside)
    assert "measured nothing yet" in refused("report", copied)


def test_a_drawing_with_a_script_and_a_picture_that_is_none_are_not_shown(copied, tmp_path):
    samples, beginning = copied / "samples", b"\x89PNG\r\n\x1a\n"
    samples.mkdir()
    whole = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">%s</svg>'
    (samples / "round-000001.svg").write_text(whole % '<path d="M 0 0 L 9 9"/>')
    run = Run.read(copied)
    good = last_samples(run)
    assert good is not None and good.text == "samples of round 1"
    bad = (
        "<script>1</script>",
        '<path onclick="1"/>',
        '<image href="http://x"/>',
        "<foreignObject/>",
        "<style/>",
        "<&",
    )
    for number, inside in enumerate(bad, 2):
        (samples / f"round-00000{number}.svg").write_text(whole % inside)
    (samples / "round-000008.png").write_bytes(b"no picture")
    (samples / "round-x.png").write_bytes(beginning)
    (tmp_path / "outside.png").write_bytes(beginning)
    (samples / "round-000009.png").symlink_to(tmp_path / "outside.png")
    assert last_samples(run) == good


def test_the_command_leaves_other_files_alone(copied, tmp_path):
    target = tmp_path / "target"
    target.write_text("mine")
    (copied / "report.html").unlink(missing_ok=True)
    (copied / "report.html").symlink_to(target)
    assert invoke("report", copied).exit_code == 0
    assert target.read_text() == "mine" and not (copied / "report.html").is_symlink()
