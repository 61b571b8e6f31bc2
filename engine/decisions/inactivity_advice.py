"""Advise an inactivity window from the enrolments themselves. Pure.

A window should end enrolments in which nothing more will happen, and keep those in which something would have happened.
The measure is therefore a quiet stretch that did end: the time from entry or from a settled message to the next message
of the same enrolment, or to the conversion. A window at the 99th percentile of these would have cut one in a hundred
short.

Nobody knows what would still have happened in an enrolment that ended as inactive, except a conversion, which is
recorded for ended enrolments too. The advice therefore depends on what the current window allowed to happen: it
shortens a window reliably, but lengthens it only as far as conversions show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

ENOUGH: Final = 300
"""Below this number of quiet stretches nothing is advised: of 300, three are above the 99th percentile."""

SHARE: Final = 0.99
DAY: Final = timedelta(days=1)


def advised(stretches: Mapping[int, int], longest_wait: timedelta) -> timedelta | None:
    """Return the advised window; None if there are fewer than `ENOUGH` stretches.

    `stretches` maps the length of quiet stretches, in days rounded up, to their number. The window is at least
    `longest_wait` (of a message for the previous one) plus a day, because an apply would refuse a shorter one.
    """
    count = sum(stretches.values())
    if count < ENOUGH:
        return None
    left = math.ceil(SHARE * count)
    days = 0
    for days in sorted(stretches):
        left -= stretches[days]
        if left <= 0:
            break
    return max(DAY * max(1, days), longest_wait + DAY)
