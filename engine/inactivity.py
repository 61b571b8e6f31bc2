"""Which inactivity window the enrolments themselves advise. Pure.

A window ends stays in which nothing will happen any more, and must not end those in which something would have. So the
measure is the quiet stretch that did end: the time from the entry or from a settled message to the next message of the
same stay, or to the conversion. A window at the 99th percentile of these would have cut short one in a hundred.

What a stay that ended as inactive would still have seen is unknown, but for a conversion, which is written for stays
that ended too. So the advice rests on what the present window let happen: it shortens a window with certainty, and
lengthens it only as far as conversions tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

ENOUGH: Final = 300
"""Quiet stretches below which nothing is advised: of 300, three are above the 99th percentile."""

SHARE: Final = 0.99
DAY: Final = timedelta(days=1)


def advised(stretches: Mapping[int, int], longest_wait: timedelta) -> timedelta | None:
    """The advised window; None where there are fewer than `ENOUGH` stretches.

    `stretches` maps the length of quiet stretches, in days rounded up, to how many there were. The window is never
    below `longest_wait` (of a message for the one before it) and a day, for an apply would refuse that.
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
