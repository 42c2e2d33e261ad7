"""Texts that somebody might put where a name belongs, and run directories that hold them in every place for text."""

import itertools
import json
import random
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import tomli_w
from safetensors import safe_open
from safetensors.numpy import save_file

SCRIPT = "window.fmtda_hacked=1"
PIECES = (
    *("</script>", "<!--<script>", "<script>" + SCRIPT + "</script>", "]]>", "</title>", "' onfocus='"),
    *(
        f"<img src=x onerror={SCRIPT}>",
        f"<svg/onload={SCRIPT}>",
        f'"><b onmouseover="{SCRIPT}">',
        "' autofocus onfocus='",
    ),
    *(f'<a href="javascript:{SCRIPT}">x</a>', "<br>", "<b>", "<sub>", "<extra>", "&lt;b&gt;", "&#60;i&#62;", "&amp;"),
    *("PLOTLY_FIGURES", "PLOTLY_LIBRARY", "{{ figures() }}", "{% raw %}", "{#", "%{x}", "%{fullData.name}", "$x^2$"),
    *("__proto__", "constructor", "toString", "hasOwnProperty", "null", "undefined", "1e5", "2020-01-01"),
    *("\u2028", "\u202e", "\u200b", "\x1b[31m", "\x1b]8;;http://x\x07", "\x00", "\x9b2J", "\x7f", "\r", "\n", "\t"),
    *("[red]", "[/]", "[link=http://x]", ":smile:", "[/bold]x[", "\\[", "\ufeff", "\U000e0041"),
    *("`", "```", "|", "# ", "- ", "---", "![x](http://x)", "[x](javascript:1)", "<http://x>", "www.x.y", "*_*", "\\"),
    *("..", "../../x", "/etc/passwd", "\\..\\", "C:", "~", "%00", "=1+1", "a", "ö", "漢", "😀", "\ud800", "'", '"'),
)


def hostile(seed: int) -> Iterator[str]:
    """Texts without an end, each another one; equal seeds draw equal texts."""
    draws = random.Random(seed)
    for number in itertools.count():
        pieces = draws.choices(PIECES, k=draws.randint(1, 4))
        yield "".join(pieces[:1] if draws.random() < 0.2 else pieces) + f"{number}"


def harmless() -> Iterator[str]:
    """As many texts that mean nothing to anybody."""
    return (f"text{number}" for number in itertools.count())


def retold(run: Path, copy: Path, texts: Iterator[str], failures: int = 12, pictures: bool = False) -> list[str]:
    """Copy a run directory with other text in every place that holds some; returns those that its report shows.

    `data.source` and `data.targets` stay: what is no domain's name is refused with the whole config.toml.
    """
    others = ("clients", "checkpoints", "uploads", "tensorboard", "*.safetensors", "report.html", "printed.txt")
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns(*others))
    config = tomllib.loads((run / "config.toml").read_text())
    data = config["settings"]["data"]
    word = _remembered(lambda: _one_line(next(texts)))  # a comma list and TOML hold no surrogate and no comma
    data["classes"] = ",".join(word(name) for name in data["classes"].split(","))
    config["versions"] = {word(name): word(f"version of {name}") for name in config["versions"]}
    (copy / "config.toml").write_text(tomli_w.dumps(config), encoding="utf-8")
    told = [next(texts) for _ in range(failures)]
    lines = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for key in ("accuracy", "confusion", "label_free", "source_only", "plain_source_only"):
            line |= {key: {word(domain): value for domain, value in line[key].items()}} if key in line else {}
        line["clients"] = {_client(word, name): client for name, client in line["clients"].items()}
    names = list(lines[1]["clients"])
    lines[0]["failures"] = told
    news = {"joined": 1, "nearest": {name: {"divergence": 0.5, "weight": 0.5} for name in names}}
    lines[1]["newcomers"] = {names[0]: news}
    (copy / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if pictures:
        with safe_open(run / "illustration.safetensors", "numpy") as file:
            about = json.loads(file.metadata()["illustration"])
            arrays = {key: file.get_tensor(key) for key in file.keys()}
        about = {"domains": [*map(word, about["domains"])], "clients": [_client(word, n) for n in about["clients"]]}
        renamed = {f"{word(key.rsplit('/', 1)[0])}/{key.rsplit('/', 1)[1]}": array for key, array in arrays.items()}
        save_file(renamed, copy / "illustration.safetensors", {"illustration": json.dumps(about)})
    return told + names


def _client(word: Callable[[str], str], name: str) -> str:
    domain, share = name.rsplit("/", 1)
    return f"{word(domain)}/{share}"


def _one_line(text: str) -> str:
    return text.replace(",", "").encode("utf-8", "replace").decode().strip()


def _remembered(make: Callable[[], str]) -> Callable[[str], str]:
    """Give each old text a new one, and the same again."""
    made: dict[str, str] = {}
    return lambda old: made[old] if old in made else made.setdefault(old, make())
