"""How figures are shown, and that templates escape everything."""

from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from engine.web.rendering import Static, Templates, instant, number, percent, rate, seconds


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (number(1234567), "1,234,567"),
        (number(None), "-"),
        (rate(0.04), "0.04"),
        (rate(3.14), "3.1"),
        (rate(1234.5), "1,234"),
        (percent(0.1234), "12.3%"),
        (seconds(0.0123), "12.3 ms"),
        (seconds(3.456), "3.46 s"),
        (seconds(310.4), "5m10s"),
        (seconds(None), "-"),
        (instant(1_700_000_000_123), "2023-11-14 22:13:20"),
    ],
)
def test_figures_are_shown_as_people_read_them(shown: str, expected: str) -> None:
    assert shown == expected


def test_every_template_can_be_read_and_escapes_what_it_shows() -> None:
    templates = Templates(static=Static().address, links=())
    for name in templates.names():
        assert "|safe" not in templates.source(name).replace(" ", ""), name
        assert "<script>" not in templates.source(name), name
        assert " style=" not in templates.source(name), name
        assert " onclick" not in templates.source(name), name


def test_a_name_that_a_template_misspells_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        Templates(static=Static().address, links=()).page("error.html", {"title": "x"})


def test_a_changed_file_gets_another_address() -> None:
    static = Static()
    address = static.address("style.css")
    found = static.get("style.css")
    assert found is not None
    assert address == f"/static/style.css?v={found[2]}"
    assert static.get("../style.css") is None
