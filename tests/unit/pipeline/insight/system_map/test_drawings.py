"""The drawings of the installation: what each says, and that no name in them becomes markup."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from engine.domain.system_view import Level, Times, Verdict
from engine.pipeline.insight.system_map.arrangement import arranged, cut, number, seconds
from engine.pipeline.insight.system_map.svg import STYLE, svg
from engine.pipeline.insight.system_map.text import document, headline, mermaid, tables
from tests.support.system_views import NOW, lane, system_view

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert(1)</script>\"'&]] onload=x `"


def parsed(text: str) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314 - our own drawing


def words(drawing: ET.Element) -> str:
    return "\n".join(text.text or "" for text in drawing.iter(f"{SVG}text"))


def test_every_part_has_a_box_with_its_state_in_words_and_by_shape() -> None:
    view = system_view(
        lanes=tuple(lane(level.value, Verdict(level, "because")) for level in Level),
        edges=(),
    )
    drawing = parsed(svg(view))
    boxes = {group.get("data-node"): group for group in drawing.iter(f"{SVG}g") if group.get("data-node")}
    assert set(boxes) >= {f"lane/{level.value}" for level in Level} | {"store/mongodb", "channel/email"}
    shapes = {}
    for level in Level:
        group = boxes[f"lane/{level.value}"]
        assert group.get("class") == level.value
        sign = next(part for part in group.iter() if part.get("class") == "sign")
        shapes[level] = (sign.tag, len((sign.get("points") or "").split()))
    assert shapes[Level.STRAINED] == (f"{SVG}polygon", 3)
    assert shapes[Level.FAILING] == (f"{SVG}polygon", 8)
    assert shapes[Level.UNKNOWN] == (f"{SVG}rect", 0)
    for word in ("idle", "fine", "strained", "failing", "not known"):
        assert word in words(drawing)


def test_a_box_says_depth_age_rate_and_times_with_the_campaign_of_the_worst() -> None:
    told = words(parsed(svg(system_view())))
    for part in (
        "5 slices wait, 1 in work; 2 messages ready",
        "the oldest has waited 3.2 s",
        "waits p50/95/99: 20 ms / 400 ms / 1.2 s",
        "worst: 2.5 s (shop/winback)",
        "1.5 slices/s",
        "120 users/s",
        "310 calls/s",
        "85 sent/s",
        "at most 100/s",
        "policies 0123456789ab",
    ):
        assert part in told


def test_arrows_lead_from_a_column_to_the_next_only() -> None:
    drawing = arranged(system_view())
    assert {(arrow.source.id, arrow.target.id) for arrow in drawing.arrows} == {
        ("producer/clock", "lane/fast"),
        ("lane/fast", "fleet/fast"),
        ("fleet/fast", "store/mongodb"),
        ("fleet/fast", "channel/email"),
    }


def test_no_two_boxes_of_a_column_overlap_and_all_lie_inside() -> None:
    drawing = arranged(system_view(lanes=tuple(lane(f"lane{n}") for n in range(12)), edges=()))
    for column in range(4):
        boxes = sorted((box for box in drawing.boxes if box.column == column), key=lambda box: box.y)
        for above, below in pairwise(boxes):
            assert above.y + above.height < below.y
    assert all(box.x + box.width <= drawing.width and box.y + box.height <= drawing.height for box in drawing.boxes)
    assert drawing.width == 1279


def test_names_and_reasons_are_text_in_every_drawing() -> None:
    view = system_view(
        lanes=(lane(HOSTILE, Verdict(Level.FAILING, HOSTILE, HOSTILE), waits=Times(1, 1, 1, 1, 1, HOSTILE, NOW)),),
        verdict=Verdict(Level.FAILING, HOSTILE),
        edges=(),
    )
    drawing = parsed(svg(view, lambda kind, name: f"/x?{kind}={name}"))
    assert not list(drawing.iter(f"{SVG}script"))
    assert not [name for part in drawing.iter() for name in part.attrib if name.startswith("on")]
    assert "<script" not in mermaid(view)
    assert '"' not in re.sub(r'\["[^"]*"\]|\|"[^"]*"\|', "", mermaid(view))


def test_a_box_is_a_link_where_one_is_given() -> None:
    drawing = parsed(svg(system_view(), lambda kind, name: f"/{kind}s#{name}" if kind == "lane" else None))
    assert [link.get("href") for link in drawing.iter(f"{SVG}a")] == ["/lanes#fast"]
    assert "lane fast: fine" in str(next(drawing.iter(f"{SVG}a")).get("aria-label"))


def test_a_drawing_for_a_page_has_no_style_of_its_own() -> None:
    drawing = parsed(svg(system_view(), style=False))
    assert not list(drawing.iter(f"{SVG}style"))
    assert not [part for part in drawing.iter() if part.get("style")]
    assert STYLE in svg(system_view())


def test_what_a_store_that_is_away_knows_is_shown_as_not_known() -> None:
    view = system_view(
        lanes=(
            lane(verdict=Verdict(Level.UNKNOWN, "what waits here is not known"), slices=None, ready=None, held=None),
        )
    )
    rows = next(rows for title, _, rows in tables(view) if title == "\nlanes")
    assert rows[0][:4] == ("?", "fast", "not known", "?")


def test_the_document_is_plain_and_the_headline_says_how_it_is() -> None:
    read = json.loads(json.dumps(document(system_view())))
    assert read["lanes"][0]["waits"]["worst_campaign"] == "shop/winback"
    assert read["at"].startswith("2026-")
    assert headline(system_view()).startswith("* fine: all is well  (as of 2026-")


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0004, "0.4 ms"), (0.045, "45 ms"), (3.21, "3.2 s"), (250, "4m10s"), (7_500, "2h05m")]
)
def test_times_are_shown_as_people_read_them(value: float, shown: str) -> None:
    assert seconds(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(0.254, "0.25"), (3.84, "3.8"), (12.4, "12"), (1_240.2, "1,240")])
def test_numbers_have_the_digits_that_matter(value: float, shown: str) -> None:
    assert number(value) == shown


def test_a_line_that_is_too_long_ends_with_an_ellipsis() -> None:
    assert cut("a" * 100, 63) == "a" * 9 + "…"
    assert cut("short", 63) == "short"
