"""Hand over: what a deciding slice chooses gets delivering slices at once, so that mails go out while it goes on.

Each is small, for whoever is free. What is left without one (a crash, a look, a retry) gets it from the clock.
"""

from __future__ import annotations

from typing import Final
from uuid import uuid4

from engine.clock import Clock
from engine.domain.keys import AFTER, HIGHEST, cut_range, slice_id, stay_prefix
from engine.domain.work import Slice, SliceKind
from engine.pipeline.ports import SliceStore
from engine.pipeline.working import Hold

PART: Final = 2_000
"""Deliveries of a delivering slice: a second or two of one thread, where the provider is quick."""

WORTH: Final = 500
"""Deliveries that are worth a slice before the deciding slice ends."""


class HandingOver:
    """Makes delivering slices of what deciding slices have chosen."""

    def __init__(self, slices: SliceStore, clock: Clock) -> None:
        self._slices = slices
        self._clock = clock

    def chosen(self, hold: Hold, first: str, cursor: str | None, count: int) -> None:
        """Note that `count` deliveries were chosen from bound `first` to `cursor` (None: to the end of the slice)."""
        if count and hold.chosen_from is None:
            hold.chosen_from = first
        hold.chosen += count
        until = hold.piece.until if cursor is None else _behind(cursor)
        if hold.chosen_from is not None and (cursor is None or hold.chosen >= WORTH):
            self._add(hold, hold.chosen_from, until)
            hold.chosen, hold.chosen_from = 0, None

    def _add(self, hold: Hold, first: str, until: str) -> None:
        piece, now = hold.piece, self._clock.campaign_now()
        prefix = stay_prefix(piece.workspace, piece.campaign)
        name = f"{prefix}deliver/{self._clock.system_now():015d}-{uuid4().hex[:8]}"
        parts = cut_range(first, until, max(1, round(hold.chosen / PART)))
        self._slices.add(
            [
                Slice(slice_id(name, i), None, piece.workspace, piece.campaign, SliceKind.DELIVER, now, start, end)
                for i, (start, end) in enumerate(parts)
            ]
        )


def _behind(cursor: str) -> str:
    """The bound behind every enrolment up to a cursor: a suffix `h/u`, an enrolment `h/u/entry`, or a bound itself."""
    match cursor.count("/"):
        case 0:
            return cursor
        case 1:
            return f"{cursor}/{HIGHEST}"
        case _:
            return cursor + AFTER
