"""Search log lines, and assemble the story of one delivery."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.clock import parse_instant
from engine.domain.keys import layout_hash, user_suffix
from engine.errors import WrongCall
from engine.telemetry.delivery_story import Line, story
from engine.telemetry.ecs import ecs_line
from engine.telemetry.events import trace_id
from engine.telemetry.log_file_search import Files
from engine.telemetry.log_query import LogQuery, parse_query, value_of
from engine.telemetry.redaction import Redactor

REDACTOR = Redactor(b"k" * 16)
AS_OF = parse_instant("2017-01-15T23:59:59.999Z")
SUFFIX = user_suffix("hh-1")
HASH = layout_hash("hh-1")


def line(name: str, at: int, **fields: object) -> dict[str, object]:
    return ecs_line(name, "info", fields, at=at, redactor=REDACTOR, process="fast", sequence=at)


def passes(user: str = "hh-1") -> list[dict[str, object]]:
    """Return a pass of two slices that chose two deliveries, another pass, and another campaign."""
    common = {"campaign": "lapsed", "campaign_uid": "lapsed-1", "as_of": AS_OF, "run": "r1"}
    halves = [{"first": "00000000", "until": "80000000"}, {"first": "80000000", "until": "g"}]
    own, others = halves if layout_hash(user) < "8" else reversed(halves)
    sent = {"campaign": "lapsed", "campaign_uid": "lapsed-1", "chosen_at": AS_OF, "slice": "r1/a"}
    return [
        line("run.planned", 1, **common),
        line("slice.claimed", 2, **common, slice="r1/a", **own),
        line("slice.claimed", 3, **common, slice="r1/b", **others),
        line("batch.decided", 4, **common, slice="r1/a"),
        line("batch.decided", 5, **common, slice="r1/b"),
        line("run.decided", 6, **common),
        line("delivery.retried", 7, **sent, user=user, message="first"),
        line("delivery.sent", 8, **sent, user=user, message="first"),
        line("delivery.sent", 9, **sent, user="hh-2", message="first"),
        line("batch.decided", 10, **(common | {"as_of": AS_OF + 1, "run": "r2"}), slice="r2/a"),
        line("delivery.sent", 11, campaign="other", chosen_at=AS_OF, user=user, message="x"),
        line("clock.set", 12, campaign_time=AS_OF),
    ]


def names(lines: list[Line]) -> list[str]:
    return [f"{value_of(logged, 'event.action')} {value_of(logged, 'labels.slice') or ''}".strip() for logged in lines]


@pytest.mark.parametrize("user", ["hh-1", "zoe@example.org"])
def test_a_story_holds_the_pass_that_chose_the_delivery_and_nothing_of_others(user: str) -> None:
    lines = passes(user)
    query = parse_query(f"campaign:lapsed user:{user} event:delivery.sent", REDACTOR)
    hits = [logged for logged in lines if query.matches(logged)]
    assert len(hits) == 1
    explanation = story(hits, lambda focus: [logged for logged in lines if focus.holds(logged)])
    assert names(explanation) == [
        "run.planned",
        "slice.claimed r1/a",
        "batch.decided r1/a",
        "run.decided",
        "delivery.retried r1/a",
        "delivery.sent r1/a",
    ]
    assert value_of(explanation[0], "trace.id") == trace_id("lapsed-1", AS_OF)


def test_without_a_choosing_slice_ranges_find_the_slices_of_the_user() -> None:
    common = {"campaign": "lapsed", "as_of": AS_OF}
    lines = [
        line("batch.decided", 1, **common, slice="a", first=HASH, until="g"),
        line("batch.decided", 2, **common, slice="b", first="00000000", until=HASH),
        line("batch.decided", 3, **common, slice="c", first=SUFFIX, until=SUFFIX + "0"),
        line("delivery.sent", 4, campaign="lapsed", chosen_at=AS_OF, user="hh-1"),
    ]
    assert names(story(lines[3:], lambda focus: filter(focus.holds, lines))) == [
        "batch.decided a",
        "batch.decided c",
        "delivery.sent",
    ]


def test_lines_without_a_user_have_no_story() -> None:
    assert story([line("clock.set", 1)], lambda _: []) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", 12),
        ("campaign:lapsed", 10),
        ("campaign:lapsed-1", 10),
        ("campaign:laps*", 10),
        ("event:delivery.* user:hh-1", 3),
        ("event:batch.decided slice:r1/a", 1),
        ("level:info", 12),
        ("process:fast", 12),
        ("planned", 1),
        ("'run.planned'", 1),
        ("outcome:success", 0),
        ("RUN decided", 1),
        (f"trace:{trace_id('lapsed-1', AS_OF)}", 9),
    ],
)
def test_a_query_finds_lines_by_terms_and_words(text: str, found: int) -> None:
    query = parse_query(text, REDACTOR)
    assert sum(query.matches(entry) for entry in passes()) == found


def test_since_omits_older_lines() -> None:
    assert sum(LogQuery(since=8).matches(entry) for entry in passes()) == 5


@pytest.mark.parametrize(
    ("text", "hint"),
    [("campain:x", "did you mean campaign:x?"), ("http://x", "or quote"), ("'open", "close the quote")],
)
def test_an_unreadable_query_is_refused_with_a_remedy(text: str, hint: str) -> None:
    with pytest.raises(WrongCall) as refusal:
        parse_query(text, REDACTOR)
    assert hint in refusal.value.remedy


def test_a_pseudonymised_user_is_found_by_the_address() -> None:
    assert parse_query("user:zoe@example.org", REDACTOR).terms == (("user", REDACTOR.user("zoe@example.org")),)


def test_the_newest_lines_of_many_files_are_in_order_without_torn_ones(tmp_path: Path) -> None:
    lines = [json.dumps(entry) for entry in passes()]
    (tmp_path / "fast-1-0123abcd.0001.ndjson").write_text("\n".join(lines[::2]) + '\n{"@timest')
    (tmp_path / "slow-2-0123abcd.0001.ndjson").write_text("\n".join(lines[1::2]) + "\n")
    (tmp_path / "other.txt").write_text("no log")
    match = Files(tmp_path).search(parse_query("campaign:lapsed", REDACTOR), 3)
    assert [value_of(entry, "event.sequence") for entry in match] == [8, 9, 10]
