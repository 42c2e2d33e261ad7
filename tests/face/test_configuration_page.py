"""docs/configuration.md says what the settings are."""

from pathlib import Path

from fmtda.face.configuration_page import page
from fmtda.strategies.composition import every_default


def test_the_page_in_docs_is_current():
    assert (Path(__file__).parents[2] / "docs" / "configuration.md").read_text() == page()


def test_every_key_has_a_row():
    rows = [line.split("|")[1].strip(" `") for line in page().splitlines() if line.startswith("| `")]
    assert set(every_default()) <= set(rows)
