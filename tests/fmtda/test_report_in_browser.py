"""The report in a real browser: everything is drawn, nothing complains, nothing sticks out on a phone."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fmtda.report.page import rendered

ROOT = Path(__file__).parents[2]
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium here (apt-get install chromium)")

MEASURE = """<script>
const look = () => {
  const root = document.documentElement;
  if (root.dataset.drawn !== "yes") { setTimeout(look, 50); return; }
  root.dataset.inner = innerWidth;
  root.dataset.scroll = root.scrollWidth;
  root.dataset.background = getComputedStyle(document.body).backgroundColor;
  root.dataset.text = getComputedStyle(document.querySelector(".plot text") || document.body).fill;
};
look();
</script></body>"""


def seen(page: str, folder: Path, width: int, dark: bool = False) -> tuple[str, list[str]]:
    """The page's DOM after it was drawn, and what the console said."""
    file = folder / "page.html"
    file.write_text(page.replace("</body>", MEASURE))
    words = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom", "--enable-logging=stderr"]
    words += [f"--window-size={width},1000", "--virtual-time-budget=30000", f"--user-data-dir={folder / 'profile'}"]
    words += ["--blink-settings=preferredColorScheme=0"] if dark else []
    done = subprocess.run([*words, file.as_uri()], capture_output=True, text=True, timeout=300)
    return done.stdout, re.findall(r".*CONSOLE.*", done.stderr)


def told(dom: str, name: str) -> str:
    return re.search(rf'<html[^>]* data-{name}="([^"]*)"', dom)[1]


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
    assert dom.count('class="main-svg"') >= pages[name].count('class="plot"') > 0
    assert int(told(dom, "scroll")) <= int(told(dom, "inner"))
    if width > 500:  # a window of this browser is 500 wide at least, on some systems
        assert int(told(dom, "inner")) == width


def test_light_and_dark_reach_page_and_figures(pages, tmp_path):
    (tmp_path / "light").mkdir()
    (tmp_path / "dark").mkdir()
    light, _ = seen(pages["benchmark"], tmp_path / "light", 1280)
    dark, _ = seen(pages["benchmark"], tmp_path / "dark", 1280, dark=True)
    for what in ("background", "text"):
        assert told(light, what) != told(dark, what)
