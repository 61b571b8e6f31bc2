"""The plots of the lanes' bench are drawn from the tables of the page."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from bench.lanes_plots import draw
from bench.report import PAGE

TEXT = "{http://www.w3.org/2000/svg}text"


def test_each_plot_shows_the_values_of_its_table(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    made = draw(page, tmp_path)
    assert [path.name for path in made] == ["lanes-flood.svg", "lanes-gate.svg", "lanes-slow.svg"]
    texts = [text.text or "" for text in ET.parse(made[0]).iter(TEXT)]  # noqa: S314 - our own
    flood = page.partition("<!-- bench.lanes flood -->")[2].partition("<!-- /")[0].splitlines()
    first = next(line for line in flood if line.startswith("| `tidegate up` | waits"))
    before, during = first.split("|")[5].split(",")[-1].strip(), first.split("|")[6].split(",")[-1].strip()
    assert {before, during} <= {text.replace(",", "") for text in texts}


def test_a_page_without_tables_gives_no_plot(tmp_path: Path) -> None:
    assert draw("", tmp_path) == []
