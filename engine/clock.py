"""Two clocks: decisions use campaign time, the machinery uses system time. Code that decides gets the time passed in.

An `Instant` is an integer of milliseconds since 1970-01-01T00:00:00Z, in memory and in every store, so that a window
flips at exactly one millisecond on every target (`docs/decisions/0002-instants-are-integers.md`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, TypeAlias

Instant: TypeAlias = int

_UNITS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
_DURATION: Final = re.compile(r"(\d+)(ms|s|m|h|d|w)")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


class Clock(Protocol):
    """A source of time; the composition root provides one, and tests provide their own."""

    def campaign_now(self) -> Instant:
        """Return campaign time, on which decisions rely: windows, waits, due times."""

    def campaign_clock(self) -> Callable[[], Instant]:
        """Return a function that gives campaign time for about a second: the fixed time, or system time.

        Use it for work already in progress: a person who advances a fixed time waits until no work is in progress.
        """

    def system_now(self) -> Instant:
        """Return system time, for logs and rates."""

    def monotonic(self) -> float:
        """Return seconds that never go back, to measure a lease."""

    def worked(self) -> float:
        """Return the processor seconds of this thread, which do not depend on other load."""


class SystemClock:
    """The machine's clock; campaign time is system time."""

    def campaign_now(self) -> Instant:
        """Return system time, which is campaign time here."""
        return self.system_now()

    def campaign_clock(self) -> Callable[[], Instant]:
        """Return a function for system time, which is campaign time here."""
        return self.system_now

    def system_now(self) -> Instant:
        """Return milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start."""
        return time.monotonic()

    def worked(self) -> float:
        """Return seconds of this thread's processor time."""
        return time.thread_time()


def millis(duration: timedelta) -> int:
    """Return the whole milliseconds in `duration`."""
    return duration // _MILLISECOND


def parse_duration(text: str) -> timedelta:
    """Read `90s`, `15m`, `12h`, `14d`, `2w`, `250ms` or a sequence of them (`1h30m`); a day is 86,400 s.

    Raises `ValueError` for anything else: a number without a unit, a sign, a fraction, spaces.
    """
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"expected a duration such as 90s, 15m, 12h or 14d, got {text!r}")
    return timedelta(milliseconds=sum(int(number) * _UNITS[unit] for number, unit in parts))


def format_duration(duration: timedelta) -> str:
    """Return the shortest text that `parse_duration` reads back: `14d`, `1h30m`, `0s`."""
    left, parts = millis(duration), []
    for unit in ("d", "h", "m", "s", "ms"):
        number, left = divmod(left, _UNITS[unit])
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"


def instant(moment: datetime) -> Instant:
    """Return the instant of an aware `moment`, cut to the millisecond. Raises `ValueError` for a naive one."""
    if moment.tzinfo is None:
        raise ValueError("a moment needs a time zone")
    return (moment - _EPOCH) // _MILLISECOND


def moment(at: Instant) -> datetime:
    """Return the aware UTC datetime of an instant."""
    return _EPOCH + timedelta(milliseconds=at)


def parse_instant(text: str) -> Instant:
    """Read an ISO 8601 date or date-time; without a zone it is UTC. Raises `ValueError` for anything else."""
    read = datetime.fromisoformat(text)
    return instant(read if read.tzinfo else read.replace(tzinfo=UTC))


def format_instant(at: Instant) -> str:
    """Return ISO 8601 in UTC with milliseconds, e.g. `2017-01-01T23:59:59.999Z`."""
    return moment(at).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at % 1000:03d}Z"
