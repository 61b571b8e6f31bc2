"""The wait after failed log-ins."""

from __future__ import annotations

from datetime import timedelta

import pytest

from engine.decisions.login_delay import FREE, LONGEST_FOR_ADDRESS, LONGEST_FOR_NAME, login_delay


@pytest.mark.parametrize("longest", [LONGEST_FOR_NAME, LONGEST_FOR_ADDRESS])
def test_the_wait_never_falls_and_ends_at_the_longest(longest: timedelta) -> None:
    waits = [login_delay(failures, longest) for failures in range(100)]
    assert waits == sorted(waits)
    assert waits[-1] == longest


def test_people_who_mistype_do_not_wait() -> None:
    assert login_delay(FREE - 1, LONGEST_FOR_NAME) == timedelta(0)
    assert login_delay(FREE, LONGEST_FOR_NAME) == timedelta(seconds=1)
    assert login_delay(FREE + 1, LONGEST_FOR_NAME) == timedelta(seconds=2)
