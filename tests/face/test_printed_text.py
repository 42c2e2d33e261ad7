"""What reaches a terminal, a log, a card of a model or a file's name: text of anybody stays text on one line."""

import io
import itertools
import json
import logging
import unicodedata
from pathlib import Path

import pytest
import typer
from hostile_texts import hostile
from markdown_it import MarkdownIt
from rich.console import Console

from fmtda.face.console import say
from fmtda.face.file_names import file_name
from fmtda.face.model_card import code, model_card
from fmtda.face.progress import Bars, CellBar, CellLines, ErrorLines, StageBar
from fmtda.face.refusals import refuse, stop
from fmtda.face.run_table import print_generated, print_run
from fmtda.inference.adapted_model import AdaptedModel
from fmtda.protocol.printable import HIDDEN
from fmtda.server.progress import Lines
from fmtda.simulation.flower_engine import _log_flower_to

TEXTS = list(itertools.islice(hostile(7), 200))


def harmless(shown: str) -> bool:
    """Whether no character but the end of a line moves a cursor or hides."""
    return not {unicodedata.category(each) for each in shown.replace("\n", "")} & HIDDEN


def summary_of(domains: list[str]) -> dict:
    """What print_run reads, with these names."""
    newcomer = {"joined": 1, "nearest": {domains[0]: {"weight": 0.5, "divergence": 1.0}}, "accuracy_after": {"0": 50.0}}
    return {
        "strategy": domains[0],
        "data": domains[1],
        "metric": "accuracy",
        "accuracy_by_head": {domain: {"global": 50.0} for domain in domains},
        "accuracy": dict.fromkeys(domains, 50.0),
        "source_only": dict.fromkeys(domains, 40.0),
        "plain_source_only": {},
        "newcomers": {f"{domain}/0000": newcomer for domain in domains},
        "label_free": {f"{domain}'s": {"entropy": 1.0} for domain in domains},
        "privacy": {"delta": 1e-5, "epsilon": {f"{domain}/0000": 1.0 for domain in domains}},
        "loss": dict.fromkeys(domains, 1.0),
        "workload": domains[2],
        "gradient_steps": 4,
        "uplink_bytes_per_client_round": 1.0,
        "downlink_bytes_per_client_round": 1.0,
        "client_seconds_per_round": 1.0,
        "server_seconds_per_round": 1.0,
        "wall_seconds": 1.0,
        "failures": 0,
    }


@pytest.mark.parametrize("show", [print_run, print_generated])
def test_tables_show_names_of_anybody_as_they_are(show):
    stream = io.StringIO()
    show(Console(file=stream, width=2000), summary_of([*TEXTS, "[red]stop[/red]", "[/]"]), Path("[/] \x1b[2J"))
    assert harmless(stream.getvalue())
    assert "[red]stop[/red]" in stream.getvalue() and "[/] \\x1b[2J" in stream.getvalue()


@pytest.mark.parametrize("text", TEXTS[:40])
def test_progress_lines_and_refusals_hold_no_control_character(text, capsys):
    lines = Lines()
    lines.stage(text, 3)
    lines.round_done(1, 2, {text: 50.0})
    lines.note(text)
    cells = CellLines(Console(), 1, 0)
    cells.begin(text, 3.0)
    cells.end(text)
    say(text)
    with pytest.raises(typer.Exit):
        refuse(text)
    with pytest.raises(typer.Exit):
        stop(ValueError(text), text)
    printed = capsys.readouterr()
    assert harmless(printed.out) and harmless(printed.err)
    assert len(printed.out.splitlines()) == 6
    assert all(line.startswith("fmtda: ") for line in (printed.out + printed.err).splitlines())


def test_bars_take_no_name_for_markup():
    for text in ("[/] \x1b[2J\u202e", "[red]x[/red]", "[link=http://x]y", ":smile:"):
        stream = io.StringIO()
        console = Console(file=stream, width=200)
        bars = Bars(console, 2)
        bars.stage(text, 3)
        bars.round_done(1, 2, {text: 50.0})
        bars.close()
        stage = StageBar(console)
        stage.stage(text, 3)
        stage.close()
        cells = CellBar(console, 1, 0)
        cells.begin(text, None)
        cells.say(text)
        cells.end(text)
        cells.close()
        assert harmless(stream.getvalue())
        assert stream.getvalue().count(text[:3]) >= 5


def test_lines_on_stderr_are_harmless(capsys, monkeypatch):
    monkeypatch.setattr("fmtda.face.progress.SECONDS_BETWEEN_LINES", -1)
    lines = ErrorLines()
    lines.stage("\x1b[2J", 3)
    lines.advance(1)
    assert capsys.readouterr().err == "fmtda: \\x1b[2J: 1 of 3\n"


def test_flowers_log_is_harmless_to_look_into(tmp_path):
    logger = logging.getLogger("flwr")
    before, propagates = list(logger.handlers), logger.propagate
    try:
        _log_flower_to(tmp_path)
        try:
            raise ValueError("of a client: \x1b[2J\x9b\u202e")
        except ValueError:
            logger.exception("%s", TEXTS)
    finally:
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        for handler in before:
            logger.addHandler(handler)
        logger.propagate = propagates
    text = (tmp_path / "flower.log").read_text()
    assert harmless(text) and "\\x1b[2J\\x9b\\u202e" in text and "Traceback" in text


@pytest.mark.parametrize("text", [*TEXTS, "", " ", "`", "``", "` `", "a`"])
def test_a_code_span_of_markdown_holds_any_text(text):
    reader = MarkdownIt("commonmark").enable("table")
    (before, inline, after) = reader.parse(f"# {code(text)}: {code(text)}")
    assert (before.tag, after.tag) == ("h1", "h1")
    assert [each.type for each in inline.children or ()] == ["code_inline", "text", "code_inline"]


def test_a_card_about_hostile_names_has_the_parts_of_any_other(adapted, tmp_path):
    model = AdaptedModel.load(adapted, "pen", device="cpu")
    kinds = []
    for name, texts in (("plain", [f"t{i}" for i in range(40)]), ("hostile", [t.replace(",", "") for t in TEXTS])):
        words = iter([text.encode("utf-8", "replace").decode().strip() for text in texts])
        model.settings = model.settings.changed({"data.classes": ",".join(itertools.islice(words, 10))})
        model.client = f"{next(words)}/0000"
        card = model_card(model, tmp_path, tmp_path / f"{next(words).replace('/', '')[:50]}.onnx", "onnx")
        assert harmless(card)
        tokens = MarkdownIt("commonmark").enable("table").parse(card)
        inner = [[each.type for each in token.children or ()] for token in tokens]
        kinds.append([(token.type, token.tag, types) for token, types in zip(tokens, inner, strict=True)])
        (program,) = (token.content for token in tokens if token.type == "fence")
        compile(program.replace(" pictures", " 0"), name, "exec")
    assert kinds[0] == kinds[1]


def test_a_damaged_summary_still_has_a_card(adapted, tmp_path):
    model = AdaptedModel.load(adapted, "pen", device="cpu")
    for summary in ("[]", "{", '{"metric": 3, "accuracy_by_head": {"pen": {"global": 50.0, "evil": 1}}}', '{"a": NaN}'):
        (tmp_path / "summary.json").write_text(summary)
        assert "How good it is" in model_card(model, tmp_path, tmp_path / "x.onnx", "onnx")
    (tmp_path / "summary.json").write_text(json.dumps({"accuracy_by_head": {"pen": {"global": 50.0}}}))
    assert "| 50.0 |" in model_card(model, tmp_path, tmp_path / "x.onnx", "onnx")


@pytest.mark.parametrize("text", [*TEXTS, "", ".", "..", "../../x", "/etc/passwd", "x" * 10_000, "漢" * 300, "\x00"])
def test_a_files_name_is_one_name(text, tmp_path):
    name = file_name(text)
    (tmp_path / name).write_text("")
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert harmless(name) and not name.startswith(".")
    assert file_name("svhn/0003") == "svhn-0003" and file_name("Real World") == "Real World"
