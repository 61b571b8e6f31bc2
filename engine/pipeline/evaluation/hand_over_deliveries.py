"""Create delivering slices while a deciding slice still runs, so that mails go out before it ends.

Each delivering slice is small, so that any free worker can take it. The clock creates slices for deliveries that get
none here (after a crash, a re-evaluation or a retry).
"""

from __future__ import annotations

from typing import Final
from uuid import uuid4

from engine.clock import Clock
from engine.domain.keys import AFTER, HIGHEST, cut_range, enrolment_prefix, slice_id
from engine.domain.work import Slice, SliceKind
from engine.pipeline.ports.work import SliceStore
from engine.pipeline.slices.runner import Hold

PART: Final = 2_000
"""Deliveries of a delivering slice: a second or two of one thread if the provider is quick."""

WORTH: Final = 500
"""Fewest deliveries that get a slice before the deciding slice ends."""


class DeliveryHandover:
    """Create delivering slices for the deliveries that deciding slices have chosen."""

    def __init__(self, slices: SliceStore, clock: Clock) -> None:
        self._slices = slices
        self._clock = clock

    def chosen(self, hold: Hold, first: str, cursor: str | None, count: int) -> None:
        """Note `count` chosen deliveries from bound `first` to `cursor`; create slices once enough of them wait.

        A `cursor` of None means the end of the slice: then every chosen delivery gets its slice.
        """
        if count and hold.chosen_from is None:
            hold.chosen_from = first
        hold.chosen += count
        until = hold.slice.until if cursor is None else _behind(cursor)
        if hold.chosen_from is not None and (cursor is None or hold.chosen >= WORTH):
            self._add(hold, hold.chosen_from, until)
            hold.chosen, hold.chosen_from = 0, None

    def _add(self, hold: Hold, first: str, until: str) -> None:
        slice_, now = hold.slice, self._clock.campaign_now()
        prefix = enrolment_prefix(slice_.workspace, slice_.campaign)
        name = f"{prefix}deliver/{self._clock.system_now():015d}-{uuid4().hex[:8]}"
        parts = cut_range(first, until, max(1, round(hold.chosen / PART)))
        self._slices.add(
            [
                Slice(slice_id(name, i), None, slice_.workspace, slice_.campaign, SliceKind.DELIVER, now, start, end)
                for i, (start, end) in enumerate(parts)
            ]
        )


def _behind(cursor: str) -> str:
    """Return the bound behind every enrolment up to a cursor.

    The cursor is a suffix `h/u`, an enrolment `h/u/entry`, or already a bound.
    """
    match cursor.count("/"):
        case 0:
            return cursor
        case 1:
            return f"{cursor}/{HIGHEST}"
        case _:
            return cursor + AFTER
