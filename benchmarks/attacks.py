"""Plays the owner of one client who wants to do harm, and tells what held.

    python -m benchmarks.attacks --output benchmarks/results/attacks.json

Five clients of three embedded domains in one process, as on machines of their own: the real server, the real
ClientApp, real messages; one client's replies are replaced. An attack is drawn from a grammar: the stage at which it
comes (introduction, evaluation of the pre-trained model, training, evaluation, examples to show), what it changes (the
name, a metric, an array, a record, the text of an error), and into what. After each run this is looked at:

- the run has finished, with its summary;
- nothing was written outside the run directory, and in there no file has a name that the honest run's files lack;
- no control character was printed;
- the report can be made, and holds no element that the honest run's report lacks;
- what was refused left no trace: the model and the other domains' figures are, bit by bit, those of a run in which that
  client sent an error at that stage;
- what was taken for true (a client may lie about itself) left the model and the other domains' figures as they were; of
  arrays in training that look right, `dualadapt.robust-share` bounds what they do, and the largest change of another
  domain's figure is written down.

With ``--browser N`` every N-th report is opened in headless Chromium, where a script would leave a mark.
"""

import contextlib
import html.parser
import io
import json
import math
import os
import re
import shutil
import subprocess
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict, UserConfig
from rich.console import Console

from fmtda.benchmarking.cells import write_whole
from fmtda.benchmarking.command_line import command_line, refusals
from fmtda.benchmarking.provenance import provenance
from fmtda.benchmarking.settings import adaptation_settings
from fmtda.face.report.page import rendered
from fmtda.face.run_table import print_run
from fmtda.protocol.settings import AdaptationSettings
from fmtda.protocol.tables import Scalar, SettingsError
from fmtda.server import checkpoints
from fmtda.server.app import run
from fmtda.server.progress import Lines
from fmtda.simulation.in_process import InProcessGrid, Tamper

CLIENTS = ("blend/0000", "pen/0000", "street/0000", "blend/0001", "pen/0001")
ATTACKER = "pen/0001"
OTHERS = ("blend", "street")
"""Domains in which the attacker has no share."""

EXAMPLES = "examples"

STAGES = {
    "introduction": "query",
    "first evaluation": "evaluate.global",
    "training": "train",
    "evaluation": "evaluate",
    EXAMPLES: "query.illustrate",
}

SMALL: dict[str, Scalar] = {
    "data.name": "digits",
    "data.targets": "blend,pen,street",
    "data.target-limit": 80,
    "data.source-limit": 60,
    "data.hold-out": 0.5,
    "clients": len(CLIENTS),
    "rounds": 1,
    "join-timeout": 2,
    "timeout": 5,
    "inputs.randomise": False,
    "inputs.scenery": False,
    "pretraining.steps": 2,
    "pretraining.batch": 8,
    "pretraining.plain-steps": 1,
    "dualadapt.server-steps": 2,
    "dualadapt.server-batch": 8,
    "dualadapt.client-steps": 2,
    "dualadapt.client-batch": 8,
    "dualadapt.components": 2,
    "dualadapt.self-training.on": False,
    "dualadapt.batch-norm.on": False,
    "dualadapt.guard": False,
    "dualadapt.robust-share": 0.2,
    "server-threads": 1,
    "device": "cpu",
}
"""Few steps of everything: what is looked at does not depend on how good the model is."""

MARK = "hacked"
"""What a script that ran would write on the page's element."""

SCRIPT = f"document.documentElement.dataset.{MARK}='yes'"

TEXTS = (
    f'<img src=x onerror="{SCRIPT}">',
    f"<script>{SCRIPT}</script>",
    f"</script><script>{SCRIPT}</script>",
    "<!--<script>",
    f'PLOTLY_FIGURES<svg/onload="{SCRIPT}">',
    "PLOTLY_LIBRARY",
    "{{ 7 * 7 }}{% raw %}",
    f'<a href="javascript:{SCRIPT}">here</a>',
    f"'\"><b onmouseover={SCRIPT}>",
    "\x1b[2J\x1b[1;31mfmtda: all is well\x07",
    "\x9b31m red",
    "line\r\nfmtda: error: a line of my own\n",
    "right\u202eotni tfel",
    "[link=file:///etc/passwd]here[/link] [bold]x",
    "| cell | [x](javascript:1) | ![](http://x/y.png)\n# heading",
    "\0",
    "\ud800",
    "x" * 10_000,
    "%s %n {0} {name!r} $(touch owned) `touch owned`; touch owned",
)
"""Texts that mean something where they may come to stand: a page, a template, a terminal, Markdown, a shell."""

NAMES = (
    "../../x/0000",
    "../x",
    "{sandbox}/absolute/0000",
    "{sandbox}/absolute",
    "pen/../blend/0000",
    "pen/0000",
    "blend/0000",
    "pen/0001/../../../../x",
    "pen\\0001",
    "pen/./0001",
    "pen//0001",
    "pen/1",
    "pen/-001",
    "pen/0001 ",
    " pen/0001",
    "PEN/0001",
    "pen/٠٠٠١",
    "pen/00\u00001",
    ".pen/0001",
    "~/0001",
    "$HOME/0001",
    "CON/0001",
    "nowhere/0001",
    "handwritten/0000",
    "pen",
    "/",
    "",
    ".",
    "..",
    "pen/99999999999999999999",
    "p\u0435n/0001",
)
"""Names that are not the attacker's: paths, others' names, look-alikes. ``{sandbox}`` is a folder that is watched."""

NUMBERS = (-1, 0, 2**31, 2**53, 2**62, 2**63 - 1, -(2**63), 1e-300, 1e30, 1.7e308, -0.5, 1.5, math.nan, math.inf)


@dataclass(frozen=True)
class Attack:
    """Says what one draw does.

    Attributes
    ----------
    stage
        A key of `STAGES`.
    what
        What is changed, for people.
    spoil
        Changes an honest reply's content; or gives the message that takes its place, or None for silence.
    arrays
        Whether it changes arrays alone, so that what passes the checks may move the model within a bound.
    """

    stage: str
    what: str
    spoil: Callable[[Message, Message], Message | None]
    arrays: bool = False


@dataclass
class Outcome:
    """Holds what was seen of a run.

    Attributes
    ----------
    failures
        What the run said of the attacker.
    broken
        What did not hold; empty where all did.
    """

    finished: bool = False
    failures: list[str] = field(default_factory=list)
    model: dict[str, torch.Tensor] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    elements: Counter[str] = field(default_factory=Counter)
    page: str = ""
    broken: list[str] = field(default_factory=list)


def hostile_text(draw: np.random.Generator) -> str:
    """Draw a text: one of `TEXTS`, two of them joined, or random characters of all of Unicode."""
    kind = draw.integers(4)
    if kind == 0:
        return "".join(chr(each) for each in draw.integers(0, 0x110000, draw.integers(1, 40)))
    one, other = (TEXTS[place] for place in draw.integers(len(TEXTS), size=2))
    return one + other if kind == 1 else one


def attack_of(draw: np.random.Generator, sandbox: Path) -> Attack:
    """Draw one attack from the grammar."""
    stage = list(STAGES)[draw.integers(len(STAGES))]
    kinds: list[Callable[[str, np.random.Generator, Path], Attack]] = [_name, _metric, _error, _record]
    kinds += [_array, _valid_arrays] if stage in ("training", EXAMPLES) else [_metric, _lie]
    return kinds[draw.integers(len(kinds))](stage, draw, sandbox)


def _name(stage: str, draw: np.random.Generator, sandbox: Path) -> Attack:
    name = str(NAMES[draw.integers(len(NAMES))]).replace("{sandbox}", str(sandbox))
    if draw.integers(3) == 0:
        name = f"pen/{hostile_text(draw)}" if draw.integers(2) else hostile_text(draw)

    def spoil(sent: Message, honest: Message) -> Message:
        honest.content["client"] = _config_record({"name": name})
        return honest

    return Attack(stage, f"calls itself {name!r}", spoil)


def _metric(stage: str, draw: np.random.Generator, sandbox: Path) -> Attack:
    values: list[Any] = [NUMBERS[draw.integers(len(NUMBERS))], [], [2**62] * 100, [1.0], [0] * 100_000]
    value = values[draw.integers(len(values))]
    keys = ["num-examples", "seconds", "correct-global", "entropy", "agreement", "confusion", "source-typicality"]
    keys += ["train-examples", "test-examples", "shares-examples", "epsilon", "cross-entropy", "__class__", ""]
    key = keys[draw.integers(len(keys))] if draw.integers(4) else hostile_text(draw)
    away = draw.integers(5) == 0

    def spoil(sent: Message, honest: Message) -> Message:
        metrics = dict(honest.content.metric_records["metrics"])
        if away:
            metrics.pop(key, None)
        else:
            metrics[key] = value
        honest.content["metrics"] = MetricRecord(metrics)
        return honest

    return Attack(stage, f"metric {key!r} {'left out' if away else f'is {str(value)[:40]}'}", spoil)


def _lie(stage: str, draw: np.random.Generator, sandbox: Path) -> Attack:
    """Everything right in its own test examples, or nothing; or twice as many of them as there are."""
    times = int((0, 1, 2, 1000)[draw.integers(4)])

    def spoil(sent: Message, honest: Message) -> Message:
        metrics = dict(honest.content.metric_records["metrics"])
        for key in [key for key in metrics if key.startswith("correct-") or key == "num-examples"]:
            metrics[key] = cast(int, metrics["num-examples"]) * times
        honest.content["metrics"] = MetricRecord(metrics)
        return honest

    return Attack(stage, f"says that {times} times its examples are right", spoil)


def _error(stage: str, draw: np.random.Generator, sandbox: Path) -> Attack:
    text, silent = hostile_text(draw), draw.integers(8) == 0

    def spoil(sent: Message, honest: Message) -> Message | None:
        return None if silent else Message(Error(int(draw.integers(0, 2**31)), text), reply_to=sent)

    return Attack(stage, "says nothing" if silent else f"an error of {text[:40]!r}", spoil)


def _record(stage: str, draw: np.random.Generator, sandbox: Path) -> Attack:
    kind = int(draw.integers(7))
    words = ["no metrics", "no name", "an unknown record", "a record of another kind", "nothing", "a list as a name"]
    words.append("a thousand records")

    def spoil(sent: Message, honest: Message) -> Message:
        content = honest.content
        if kind in (0, 1):
            content.pop(("metrics", "client")[kind])
        elif kind == 2:
            content["model"] = ArrayRecord({"weight": Array(np.zeros(3, np.float32))})
        elif kind == 3:
            content["metrics"] = _config_record({"num-examples": 3})
        elif kind == 4:
            honest = Message(RecordDict(), reply_to=sent)
        elif kind == 5:
            content["client"] = _config_record({"name": ["pen/0001"]})
        else:
            for place in range(1000):
                content[f"record-{place}"] = MetricRecord({"x": 1})
        return honest

    return Attack(stage, words[kind], spoil)


def _array(stage: str, draw: np.random.Generator, sandbox: Path) -> Attack:
    kinds = ["NaN", "infinite", "huge", "turned", "double", "objects", "bytes", "shape", "empty", "strings", "dropped"]
    kind, which = kinds[draw.integers(len(kinds))], int(draw.integers(8))

    def spoil(sent: Message, honest: Message) -> Message:
        records = [name for name, record in honest.content.items() if isinstance(record, ArrayRecord) and record]
        record = honest.content.array_records[records[which % len(records)]]
        name = list(record)[which % len(record)]
        record[name] = _spoiled(kind, record[name])
        if kind == "dropped":
            del record[name]
        return honest

    return Attack(stage, f"array {which}: {kind}", spoil, arrays=True)


def _spoiled(kind: str, array: Array) -> Array:
    """An array that is not what was asked for."""
    values = array.numpy().copy()
    if kind in ("NaN", "infinite", "huge"):
        if values.dtype.kind == "f":
            values.flat[0] = {"NaN": np.nan, "infinite": -np.inf, "huge": 3e30}[kind]
        else:
            values.flat[0] = np.iinfo(values.dtype).max
    elif kind == "turned":
        values = np.ascontiguousarray(values.T) if values.ndim > 1 else values[::-1].reshape(1, -1).copy()
    elif kind == "double":
        values = values.astype(np.float64)
    elif kind == "empty":
        values = values[:0]
    elif kind == "strings":
        values = np.full(values.shape, "x")
    if kind == "objects":
        file = io.BytesIO()
        np.save(file, np.array([os.getcwd], dtype=object), allow_pickle=True)
        return Array(dtype=array.dtype, shape=array.shape, stype=array.stype, data=file.getvalue())
    if kind == "bytes":
        return Array(dtype=array.dtype, shape=array.shape, stype=array.stype, data=b"\x93NUMPY\x01\x00" + bytes(200))
    if kind == "shape":
        return Array(dtype=array.dtype, shape=(2**40, 2**20), stype=array.stype, data=array.data)
    return Array(values)


def _valid_arrays(stage: str, draw: np.random.Generator, sandbox: Path) -> Attack:
    """Arrays that pass every check, with a mixture that is as wide as the checks allow."""
    scale, wide = float(10.0 ** draw.integers(-3, 5)), bool(draw.integers(2))

    def spoil(sent: Message, honest: Message) -> Message:
        if "classifier" not in honest.content:
            return honest
        record = honest.content.array_records["classifier"]
        for name in list(record):
            record[name] = Array((scale * draw.standard_normal(record[name].shape)).astype(np.float32))
        if wide:
            mixture = honest.content.array_records["mixture"]
            mixture["variances"] = Array(np.full(mixture["variances"].shape, 1e5, np.float32))
            mixture["quantiles"] = Array(np.full(mixture["quantiles"].shape, -1e30, np.float32))
        return honest

    return Attack(stage, f"random numbers of size {scale:g}{', a wide mixture' if wide else ''}", spoil, arrays=True)


def _config_record(values: Mapping[str, Any]) -> ConfigRecord:
    """A config record of whatever; Flower's own check of values looks at types alone."""
    return ConfigRecord(dict(values))


def tampered(attack: Attack) -> Tamper:
    """Replace the attacker's replies at the attack's stage."""

    def tamper(sent: Message, honest: Message) -> Message | None:
        mine = sent.metadata.dst_node_id == CLIENTS.index(ATTACKER)
        if not mine or sent.metadata.message_type != STAGES[attack.stage] or honest.has_error():
            return honest
        return attack.spoil(sent, honest)

    return tamper


def node_configs(folder: Path, showing: bool) -> dict[int, UserConfig]:
    """Make the nodes' configs, as their owners would write them, who agree to show examples or do not."""
    configs: dict[int, UserConfig] = {}
    for node_id, name in enumerate(CLIENTS):
        domain, share = name.split("/")
        shares = sum(other.startswith(f"{domain}/") for other in CLIENTS)
        configs[node_id] = {"domain": domain, "share": int(share), "shares": shares, "folder": str(folder / name)}
        configs[node_id]["share-examples"] = showing
    return configs


def played(settings: AdaptationSettings, attack: Attack | None, sandbox: Path, showing: bool) -> Outcome:
    """Play a run, and look at what it left. The sandbox holds nothing else, and is emptied."""
    shutil.rmtree(sandbox, ignore_errors=True)
    output = sandbox / "a" / "b" / "c" / "run"
    output.parent.mkdir(parents=True)
    nodes = sandbox / "nodes"
    outcome, printed = Outcome(), io.StringIO()
    grid = InProcessGrid(node_configs(nodes, showing), tamper=tampered(attack) if attack else None)
    settings = settings.changed({"output": str(output), "pretraining.base-dir": str(sandbox.parent / "base")})
    before = Path.cwd().stat().st_mtime_ns
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            directory = run(grid, settings, Lines(), deployed=True)
            summary = json.loads((output / "summary.json").read_text())
            print_run(Console(file=printed, width=150), summary, output)
            outcome.finished = True
        except Exception as error:  # whatever ends a run is what is looked for
            outcome.broken.append(f"the run ended: {type(error).__name__}: {str(error)[:200]!a}")
            return outcome
    outcome.broken += [f"printed {each!a}" for each in sorted({c for c in printed.getvalue() if _moves_cursor(c)})]
    files = [file for file in sandbox.rglob("*") if not file.is_relative_to(nodes) and file.is_file()]
    outside = [str(file) for file in files if not file.is_relative_to(output)]
    if Path.cwd().stat().st_mtime_ns != before:
        outside.append("in the working directory")
    outcome.broken += [f"written outside the run directory: {file!a}" for file in outside]
    curves = {file: re.sub(r"tfevents.*", "tfevents", str(file.relative_to(output))) for file in files}
    outcome.files = {name for file, name in curves.items() if str(file) not in outside}
    lines = directory.metrics()
    outcome.failures = [text for line in lines for text in line["failures"]]
    latest = checkpoints.latest(directory.checkpoints)
    outcome.model = dict(latest.model) if latest else {}
    outcome.figures = {
        domain: [line["accuracy"].get(domain) for line in lines] + [summary["source_only"].get(domain)]
        for domain in OTHERS
    }
    try:
        outcome.page = rendered([output])
    except Exception as error:
        outcome.broken.append(f"no report: {type(error).__name__}: {str(error)[:200]!a}")
    outcome.elements = elements_of(outcome.page)
    return outcome


def _moves_cursor(character: str) -> bool:
    return character != "\n" and unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}


class _Elements(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[f"{tag} {' '.join(sorted(name for name, _ in attrs))}"] += 1


def elements_of(page: str) -> Counter[str]:
    """Count a page's elements by their name and the names of their attributes."""
    parser = _Elements()
    parser.feed(page)
    return parser.seen


def judged(attack: Attack, outcome: Outcome, honest: Outcome, without: Outcome) -> dict[str, Any]:
    """Say whether everything held; raises nothing.

    Parameters
    ----------
    attack
        What was done.
    outcome
        Of the run with it.
    honest
        Of the run without it.
    without
        Of the run in which the attacker answered with an error at that stage.
    """
    broken = list(outcome.broken)
    refused = len(outcome.failures) > len(honest.failures)
    change = None
    if outcome.finished:
        expected = without if refused else honest
        broken += [f"a file of its own: {name!a}" for name in sorted(outcome.files - honest.files)]
        strange = set(outcome.elements) - set(honest.elements) - set(without.elements)
        broken += [f"an element of its own in the report: {name!a}" for name in sorted(strange)]
        same = _equal(outcome.model, expected.model) and outcome.figures == expected.figures
        if not same and attack.arrays and not refused:
            change = _largest_change(outcome.figures, honest.figures)
        elif not same:
            broken.append("the model or another domain's figures changed")
    return {
        "stage": attack.stage,
        "what": attack.what.encode("unicode_escape").decode()[:120],
        "refused": refused,
        "said": [failure[:160] for failure in outcome.failures if failure not in honest.failures][:1],
        "largest_change": change,
        "broken": broken,
    }


def _equal(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _largest_change(one: Mapping[str, list[Any]], other: Mapping[str, list[Any]]) -> float:
    """By how many points a figure of another domain differs in the last round, at most."""
    last = [(a[-2] or {}, b[-2] or {}) for a, b in zip(one.values(), other.values(), strict=True)]
    return max((abs(a[head] - b[head]) for a, b in last for head in a.keys() & b.keys()), default=0.0)


def error_at(stage: str) -> Attack:
    """The stage at which the attacker only says that something went wrong: what a refused reply is compared with."""
    return Attack(stage, "an error", lambda sent, _: Message(Error(1, "nothing"), reply_to=sent))


def attacks(
    settings: AdaptationSettings, numbers: Iterable[int], seed: int, sandbox: Path
) -> Iterator[tuple[dict[str, Any], str]]:
    """Play attack after attack, each drawn by its number.

    Yields
    ------
    tuple
        What `judged` says, and the run's report.
    """
    honest = {showing: played(settings, None, sandbox, showing) for showing in (False, True)}
    if broken := [*honest[False].broken, *honest[True].broken]:
        raise RuntimeError(f"the honest run: {broken}")
    without = {stage: played(settings, error_at(stage), sandbox, stage == EXAMPLES) for stage in STAGES}
    for number in numbers:
        draw = np.random.default_rng([seed, number])
        attack = attack_of(draw, sandbox)
        showing = attack.stage == EXAMPLES
        outcome = played(settings, attack, sandbox, showing)
        yield {"draw": number, **judged(attack, outcome, honest[showing], without[attack.stage])}, outcome.page


def script_ran(page: str, folder: Path) -> bool:
    """Open a report in headless Chromium, and say whether a script of the client's left its mark.

    Raises
    ------
    RuntimeError
        If there is no Chromium, or it did not draw the page.
    """
    browser = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
    )
    if not browser:
        raise RuntimeError("no chromium here (apt-get install chromium)")
    file = folder / "page.html"
    file.write_text(page, encoding="utf-8")
    words = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    words += ["--dump-dom", "--virtual-time-budget=20000", f"--user-data-dir={folder / 'profile'}", file.as_uri()]
    seen = subprocess.run(words, capture_output=True, text=True, timeout=300).stdout
    if 'data-drawn="yes"' not in seen:
        raise RuntimeError("chromium did not draw the report")
    return f"data-{MARK}" in seen.split(">", 2)[1] or re.search(rf"<html[^>]*data-{MARK}", seen) is not None


def table(rows: list[dict[str, Any]]) -> str:
    """Write what held as Markdown, by stage."""
    lines = ["| stage | attacks | refused | taken for true | broken | largest change of another domain |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for stage in STAGES:
        of_stage = [row for row in rows if row["stage"] == stage]
        refused, broken = (sum(bool(row[key]) for row in of_stage) for key in ("refused", "broken"))
        change = max((row["largest_change"] or 0.0 for row in of_stage), default=0.0)
        lines.append(f"| {stage} | {len(of_stage)} | {refused} | {len(of_stage) - refused} | {broken} | {change:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--draws", type=int, default=500, help="attacks to play (default: 500)")
    parser.add_argument("--seed", type=int, default=0, help="of the grammar (default: 0)")
    parser.add_argument(
        "--browser", type=int, default=0, metavar="N", help="open every N-th report in Chromium; 0: none"
    )
    parser.add_argument("--output", type=Path, required=True, help="JSON file; one that is there is gone on with")
    given = parser.parse_args()
    if given.draws < 1:
        parser.error(f"--draws {given.draws}: at least 1 is needed")
    torch.set_num_threads(1)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    about = {"command": "python -m benchmarks.attacks", "seed": given.seed, "browser": given.browser}
    with tempfile.TemporaryDirectory() as folder, refusals():
        settings = adaptation_settings({**SMALL, **given.config})
        rows = _rows(given.output, about)
        left = range(len(rows), given.draws)
        for row, page in attacks(settings, left, given.seed, Path(folder) / "sandbox") if left else ():
            row["opened"] = bool(given.browser and row["draw"] % given.browser == 0 and page)
            if row["opened"] and script_ran(page, Path(folder)):
                row["broken"].append("a script ran in the report")
            rows.append(row)
            if row["broken"]:
                print(f"broken: {json.dumps(row)}", flush=True)
            if len(rows) % 10 == 0 or len(rows) == given.draws:
                write_whole(given.output, json.dumps({**about, "results": rows, **provenance()}, indent=1) + "\n")
                print(f"{len(rows)} of {given.draws}, {sum(bool(row['broken']) for row in rows)} broken", flush=True)
    print(table(rows))
    print(f"{sum(row['opened'] for row in rows)} reports opened in Chromium")


def _rows(output: Path, about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was played before with the same seed."""
    if not output.exists():
        return []
    report = json.loads(output.read_text())
    if different := [key for key in about if report.get(key) != about[key]]:
        raise SettingsError(
            f"{output} was made with {different[0]}={report.get(different[0])}; take that again, or another --output"
        )
    return list(report["results"])


if __name__ == "__main__":
    main()
