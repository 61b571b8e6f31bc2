"""Durations and instants under stress: reading a written value returns it."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from engine.clock import format_duration, format_instant, instant, millis, moment, parse_duration, parse_instant

LENGTHS = st.integers(0, 400 * 365 * 86_400_000).map(lambda ms: timedelta(milliseconds=ms))
INSTANTS = st.integers(-62_135_596_800_000, 253_402_300_799_999)  # the years 1 to 9999


@given(LENGTHS)
def test_a_duration_that_is_written_is_read_back(length: timedelta) -> None:
    assert parse_duration(format_duration(length)) == length


@given(
    st.lists(st.tuples(st.integers(0, 9_999), st.sampled_from(["ms", "s", "m", "h", "d", "w"])), min_size=1, max_size=5)
)
def test_a_row_of_parts_is_their_sum(parts: list[tuple[int, str]]) -> None:
    texts = [f"{number}{unit}" for number, unit in parts]
    assert parse_duration("".join(texts)) == sum((parse_duration(text) for text in texts), timedelta(0))


@given(st.text(string.digits + "msdhw-. ", max_size=8))
def test_a_text_is_read_as_a_whole_duration_or_refused(text: str) -> None:
    try:
        length = parse_duration(text)
    except ValueError:
        return
    assert set(text) <= set(string.digits + "msdhw")
    assert length >= timedelta(0)


@given(INSTANTS)
def test_an_instant_is_a_moment_and_back(at: int) -> None:
    assert instant(moment(at)) == at


@given(st.integers(-30_000_000_000_000, 253_402_300_799_999))
def test_an_instant_that_is_written_is_read_back(at: int) -> None:
    assert parse_instant(format_instant(at)) == at


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)), st.integers(-23, 23))  # noqa: DTZ001 - zones come below
def test_the_zone_in_which_a_moment_is_written_does_not_matter(naive: datetime, hours: int) -> None:
    utc = naive.replace(tzinfo=UTC)
    assert instant(utc.astimezone(timezone(timedelta(hours=hours)))) == instant(utc)


@given(INSTANTS, INSTANTS)
def test_the_order_of_instants_is_the_order_of_moments(one: int, other: int) -> None:
    assert (one < other) is (moment(one) < moment(other))


@given(LENGTHS)
def test_milliseconds_lose_nothing(length: timedelta) -> None:
    assert timedelta(milliseconds=millis(length)) == length
