"""How long a name or an address has to wait for its next try after failed log-ins."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

FREE: Final = 4
"""Failures without a delay: people mistype."""
REMEMBERED: Final = timedelta(minutes=15)
"""How long a failure counts."""
LONGEST_FOR_NAME: Final = timedelta(seconds=30)
"""The longest wait for a name: somebody who guesses from elsewhere must not lock its owner out."""
LONGEST_FOR_ADDRESS: Final = timedelta(minutes=5)


def login_delay(failures: int, longest: timedelta) -> timedelta:
    """Return the wait after `failures` failures in a row: 1 s at the `FREE`th, then doubled each time, up to `longest`.

    Someone who guesses gets some 120 tries an hour at a name, and 20 from an address.
    """
    if failures < FREE:
        return timedelta(0)
    return min(timedelta(seconds=1 << min(failures - FREE, 20)), longest)
