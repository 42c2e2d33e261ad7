"""The report in a real browser: everything is drawn, nothing complains, nothing sticks out on a phone."""

import html
import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hostile_texts import SCRIPT, harmless, hostile, retold

from fmtda.face.report.page import rendered

ROOT = Path(__file__).parents[2]
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium here (apt-get install chromium)")

FRAME = """<!DOCTYPE html><html><body><iframe id="frame" style="width: WIDTHpx; height: 1000px; border: 0"></iframe>
<script type="application/json" id="page">PAGE</script>
<script>
const frame = document.getElementById("frame"), told = document.documentElement.dataset;
frame.srcdoc = JSON.parse(document.getElementById("page").textContent);
const look = () => {
  const page = frame.contentDocument;
  if (page?.documentElement?.dataset.drawn !== "yes") { setTimeout(look, 50); return; }
  const view = frame.contentWindow;
  told.inner = view.innerWidth;
  told.scroll = page.documentElement.scrollWidth;
  told.drawn = page.querySelectorAll(".plot .main-svg").length;
  told.outside = [...page.querySelectorAll(".plot")].filter(
    (plot) => plot.querySelector(".main-svg").getBoundingClientRect().width > plot.offsetWidth + 1).length;
  told.background = view.getComputedStyle(page.body).backgroundColor;
  told.text = view.getComputedStyle(page.querySelector(".plot .xtick text")).fill;
  for (const plot of page.querySelectorAll(".plot")) {
    const first = plot.data[0]?.type === "heatmap" ? [0, 0] : 0;
    view.Plotly.Fx.hover(plot, [{curveNumber: 0, pointNumber: first}]);
  }
  told.hovered = page.querySelectorAll(".hoverlayer .hovertext").length;
  told.links = page.querySelectorAll("a:not([href^='#']), svg a").length;
  told.hacked = [view.fmtda_hacked, window.fmtda_hacked].join();
  told.labels = JSON.stringify([...page.querySelectorAll(".plot text")].map((text) => text.textContent));
};
look();
</script></body></html>"""
"""The report in a frame of the width asked for: the window itself is 500 wide at least."""


def seen(page: str, folder: Path, width: int, dark: bool = False) -> tuple[str, list[str]]:
    """The DOM around the page, which tells of it once it is drawn, and what the console said."""
    file = folder / "page.html"
    inside = json.dumps(page).replace("</", "<\\/").replace("<!--", "<\\u0021--")
    file.write_text(FRAME.replace("WIDTH", str(width)).replace("PAGE", inside))
    words = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom", "--enable-logging=stderr"]
    words += [
        f"--window-size={width + 20},1100",
        "--virtual-time-budget=30000",
        f"--user-data-dir={folder / 'profile'}",
    ]
    words += ["--blink-settings=preferredColorScheme=0"] if dark else []
    done = subprocess.run([*words, file.as_uri()], capture_output=True, text=True, timeout=300)
    return done.stdout, re.findall(r".*CONSOLE.*", done.stderr)


def told(dom: str, name: str) -> str:
    return re.search(rf'<html[^>]* data-{name}="([^"]*)"', dom)[1]


@pytest.fixture(scope="module")
def hostile_page(adapted, tmp_path_factory) -> str:
    """A report in whose every text 300 draws stand."""
    folder = tmp_path_factory.mktemp("hostile") / "run"
    retold(adapted, folder, hostile(100), failures=270, pictures=True)
    return rendered([folder])


def test_text_of_anybody_runs_nothing_and_leaves_every_figure_drawn(hostile_page, tmp_path):
    dom, complaints = seen(hostile_page, tmp_path, 1280)
    assert complaints == []
    assert told(dom, "hacked") == ","
    assert told(dom, "links") == "0"
    assert int(told(dom, "drawn")) >= hostile_page.count('class="plot"') > 5
    assert int(told(dom, "hovered")) > 0 and told(dom, "outside") == "0"


def test_markup_stands_in_a_figure_as_it_was_written(adapted, tmp_path):
    names = ["<b>fat</b>", '<a href="javascript:x">link</a>', "a<br>b", "&lt;", "__proto__", "constructor", "toString"]
    retold(adapted, tmp_path / "run", itertools.chain(names, harmless()))
    dom, complaints = seen(rendered([tmp_path / "run"]), tmp_path, 1280)
    assert complaints == []
    labels = json.loads(html.unescape(told(dom, "labels")))
    assert set(names) <= set(labels)


def test_the_policy_stops_a_script_that_got_into_the_page(pages, tmp_path):
    inside = f'<script>{SCRIPT}</script><img src=x onerror="{SCRIPT}"><a id="a" href="javascript:{SCRIPT}">x</a>'
    inside += '<img src="http://127.0.0.1:9/picture.png"><iframe src="data:text/html,x"></iframe>'
    page = pages["benchmark"].replace("<nav>", f"{inside}<nav>")
    dom, complaints = seen(page, tmp_path, 1280)
    assert told(dom, "hacked") == ","
    stopped = [line for line in complaints if "Content Security Policy" in line]
    assert len(stopped) >= 4 and len(stopped) == len(complaints)
    assert int(told(dom, "drawn")) >= page.count('class="plot"')


@pytest.fixture(scope="module")
def pages(finished, generated) -> dict[str, str]:
    return {
        "adaptation": (finished[0] / "report.html").read_text(),
        "generated": (generated[0] / "report.html").read_text(),
        "side by side": rendered([finished[0], generated[0]]),
        "benchmark": rendered([ROOT / "benchmarks" / "results" / "digit-five"]),
    }


@pytest.mark.parametrize("name", ["adaptation", "generated", "side by side", "benchmark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_everything_is_drawn_without_a_complaint_and_fits(name, width, pages, tmp_path):
    dom, complaints = seen(pages[name], tmp_path, width)
    assert complaints == []
    assert int(told(dom, "drawn")) >= pages[name].count('class="plot"') > 0
    assert int(told(dom, "inner")) == width
    assert int(told(dom, "scroll")) <= width
    assert told(dom, "outside") == "0"


def test_light_and_dark_reach_page_and_figures(pages, tmp_path):
    (tmp_path / "light").mkdir()
    (tmp_path / "dark").mkdir()
    light, _ = seen(pages["benchmark"], tmp_path / "light", 1280)
    dark, _ = seen(pages["benchmark"], tmp_path / "dark", 1280, dark=True)
    for what in ("background", "text"):
        assert told(light, what) != told(dark, what)
