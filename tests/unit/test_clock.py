"""Durations and instants: whole milliseconds, parsed strictly, formatted back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from engine.clock import (
    SystemClock,
    format_duration,
    format_instant,
    instant,
    millis,
    moment,
    parse_duration,
    parse_instant,
)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("12h", timedelta(hours=12)),
        ("14d", timedelta(seconds=14 * 86_400)),
        ("2w", timedelta(days=14)),
        ("250ms", timedelta(milliseconds=250)),
        ("1h30m", timedelta(minutes=90)),
        ("0s", timedelta(0)),
    ],
)
def test_a_duration_is_a_number_with_a_unit_and_a_day_is_always_86400_seconds(text: str, length: timedelta) -> None:
    assert parse_duration(text) == length


@pytest.mark.parametrize("text", ["", "14", "-1d", "+1d", "1.5h", "1 d", "d", "14D", "1y", "1d,2h", " 1d", "1d\n"])
def test_other_durations_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="such as 90s, 15m, 12h or 14d"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(days=14), "14d"),
        (timedelta(minutes=90), "1h30m"),
        (timedelta(0), "0s"),
        (timedelta(weeks=2, milliseconds=5), "14d5ms"),
    ],
)
def test_a_duration_is_written_as_short_as_it_can_be(length: timedelta, text: str) -> None:
    assert format_duration(length) == text


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1970-01-01", 0),
        ("2017-01-01T23:59:59.999Z", 1_483_315_199_999),
        ("2026-12-01T08:00+01:00", 1_796_108_400_000),
        ("2026-12-01T07:00", 1_796_108_400_000),
    ],
)
def test_an_instant_without_a_zone_is_utc(text: str, at: int) -> None:
    assert parse_instant(text) == at


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-13-01", "31.12.2026"])
def test_other_texts_are_no_instants(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the standard library's own words
        parse_instant(text)


def test_an_instant_is_cut_to_the_millisecond() -> None:
    assert instant(datetime(1970, 1, 1, microsecond=1_999, tzinfo=UTC)) == 1


def test_a_moment_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        instant(datetime(2026, 12, 1))  # noqa: DTZ001 - that is the mistake


def test_a_moment_of_another_zone_is_the_same_instant() -> None:
    there = timezone(timedelta(hours=9))
    assert instant(datetime(1970, 1, 1, 9, tzinfo=there)) == 0


def test_an_instant_is_written_in_utc_with_milliseconds() -> None:
    assert format_instant(1_483_315_199_999) == "2017-01-01T23:59:59.999Z"


def test_milliseconds_are_whole() -> None:
    assert millis(timedelta(microseconds=1_999)) == 1


def test_the_system_clock_gives_campaign_time_too_and_never_goes_back() -> None:
    clock = SystemClock()
    first, second = clock.monotonic(), clock.monotonic()
    assert second >= first
    before = clock.system_now()
    assert before <= clock.campaign_now() <= before + 60_000
    assert moment(before).tzinfo is UTC
