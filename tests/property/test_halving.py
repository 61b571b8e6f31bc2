"""Halving slices that exceed their time limit terminates, and loses or repeats no user."""

from __future__ import annotations

from collections import Counter
from math import ceil, log2

from hypothesis import given
from hypothesis import strategies as st

from engine.decisions.poison import Halve, after_overrun, middle, treatment

USERS = st.lists(st.text("abc/0", min_size=1, max_size=4), min_size=1, max_size=60, unique=True).map(sorted)


@given(USERS, st.data())
def test_only_slow_users_remain_each_in_a_slice_of_one(users: list[str], data: st.DataObject) -> None:
    """A claim of a range with a slow user exceeds the limit; any other claim decides every user of its range."""
    slow = set(data.draw(st.lists(st.sampled_from(users), unique=True)))
    ranges: list[tuple[str, str | None]] = [("", None)]
    decided: Counter[str] = Counter()
    alone: list[str] = []
    claims = 0
    while ranges:
        first, until = ranges.pop()
        left = [user for user in users if user >= first and (until is None or user < until)]
        claims += 1
        if not slow.intersection(left):
            decided.update(left)
            continue
        again = after_overrun(errors=0, overruns=0)
        match treatment(suspect=again.suspect, deaths=again.deaths, overruns=1, users=len(left)):
            case Halve():
                cut = middle(left)
                ranges += [(first, cut), (cut, until)]
            case _:
                alone += left
    assert decided == Counter(set(users) - slow)
    assert sorted(alone) == sorted(slow)
    assert claims <= 1 + 2 * len(slow) * ceil(log2(len(users)) if len(users) > 1 else 0)
