"""Cache the campaign records of one process: read all once, then only those that changed.

With thousands of campaigns, reading them all at each tick would cost more than the tick itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Final, TypeAlias

from engine.clock import Clock, Instant
from engine.domain.campaign import CampaignRecord, Marks
from engine.pipeline.ports.campaigns import CampaignStore

MARGIN: Final = timedelta(seconds=5)
"""Longest delay with which a write may become visible after one of a later change time."""

QUIET: Final = 2 * MARGIN.total_seconds()
"""Seconds without a newer change after which no earlier write can still become visible."""

MARKS_AGAIN: Final = 60.0
"""Seconds between full reads of pass marks: another clock's marks do not bump a campaign's change time."""

Test: TypeAlias = Callable[[CampaignRecord], bool]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class LiveCampaigns:
    """Campaign records by uid.

    `generation` rises with every refresh that read a change; marks of passes do not count. A component that derives
    data from the records remembers the generation, so it also takes up a change after a refresh that failed half-way.
    """

    def __init__(self, campaigns: CampaignStore, clock: Clock) -> None:
        self._campaigns = campaigns
        self._clock = clock
        self._records: dict[str, CampaignRecord] = {}
        self._views: dict[Test, dict[str, CampaignRecord]] = {}
        self._since = _EPOCH
        self._marked = clock.monotonic()
        self._moved = float("-inf")
        self._lock = Lock()
        self.generation = 0

    def refresh(self) -> None:
        """Read the records that changed; every `MARKS_AGAIN` s also the marks of all campaigns."""
        with self._lock:
            now = self._clock.monotonic()
            quiet = now - self._moved > QUIET
            records, latest = self._campaigns.touched_since(self._since if quiet else max(_EPOCH, self._since - MARGIN))
            if latest > self._since:
                self._since, self._moved = latest, now
            changed = [record for record in records if self._records.get(record.uid) != record]
            self._put(changed)
            self.generation += bool(changed)
            if now - self._marked > MARKS_AGAIN:
                self._mark(self._campaigns.marks())
                self._marked = now

    def where(self, test: Test) -> Mapping[str, CampaignRecord]:
        """Return the known campaigns for which `test` holds, by uid; the returned mapping never changes.

        The index updates each view with every record that changes, so a call at each tick costs nothing. `test` must
        depend on the record only, and must be a module-level function.
        """
        with self._lock:
            if test not in self._views:
                self._views[test] = {uid: record for uid, record in self._records.items() if test(record)}
            return self._views[test]

    def passed(self, uids: Sequence[str], as_of: Instant, *, crossed: bool = False) -> None:
        """Remember passes that this process has planned, or (with `crossed`) that had nothing to find."""
        with self._lock:
            records = [self._records[uid] for uid in uids]
            self._put(
                [
                    replace(record, pass_as_of=as_of, crossed_to=as_of if crossed else record.crossed_to)
                    for record in records
                ]
            )

    def _mark(self, marks: Mapping[str, Marks]) -> None:
        """Take up the marks of passes; if anything else differs, a change was missed, so read all campaigns again.

        A change is missed if the clock of a new primary is behind by more than `MARGIN`.
        """
        moved = [
            replace(record, pass_as_of=new.pass_as_of, crossed_to=new.crossed_to, reconciled_at=new.reconciled_at)
            for uid, new in marks.items()
            if (record := self._records.get(uid)) is not None and record.marks != new
        ]
        self._put(moved)
        if any(record.marks != marks[record.uid] for record in moved) or len(marks) != len(self._records):
            self._since = _EPOCH

    def _put(self, records: Sequence[CampaignRecord]) -> None:
        self._records.update((record.uid, record) for record in records)
        for test, view in self._views.items():
            inside = {record.uid: record for record in records if test(record)}
            outside = {record.uid for record in records if record.uid in view}.difference(inside)
            if inside or outside:
                kept = {uid: record for uid, record in view.items() if uid not in outside} if outside else view
                self._views[test] = kept | inside
