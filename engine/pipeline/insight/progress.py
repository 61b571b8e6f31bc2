"""Say how far a campaign is, from its runs and slices alone: no enrolment is counted.

A launch (or another run) is shown by the part of its hash range that is decided, the sending by the messages that its
delivering slices have sent of those that were chosen. Of a continuous campaign only what goes on now is shown.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol

from engine.clock import Clock
from engine.domain.campaign import ONE_OFF, CampaignRecord
from engine.domain.campaign_progress import Progress
from engine.domain.keys import enrolment_prefix, position_of
from engine.domain.lifecycle import CampaignState
from engine.domain.slice_record import SliceShare
from engine.domain.work import Run, SliceKind

MOST: Final = 20_000
"""Slices of a campaign that are read: a million users are some dozens."""

RATED_OVER: Final = 10.0
"""Seconds over which the rate is measured; the caller asks again and again."""

ENDS: Final = ("sent", "failed", "unknown", "skipped")


class CampaignSlices(Protocol):
    """The slices of one campaign."""

    def of_campaign(self, campaign: str, prefix: str, *, ended: bool, limit: int) -> list[SliceShare]:
        """Return what they have done so far."""


class UndecidedRuns(Protocol):
    """Runs that are being planned or decided."""

    def undecided(self, campaigns: Sequence[str] | None = None) -> list[Run]:
        """Return them."""


class ProgressReader:
    """Reads the progress of campaigns; remembers what it read before, to say how fast they go."""

    def __init__(self, slices: CampaignSlices, runs: UndecidedRuns, clock: Clock) -> None:
        self._slices = slices
        self._runs = runs
        self._clock = clock
        self._past: dict[str, deque[tuple[float, int]]] = {}

    def of(self, record: CampaignRecord) -> Progress:
        """Return the progress of a campaign whose record was just read."""
        one_off = record.kind == ONE_OFF
        prefix = enrolment_prefix(record.workspace, record.uid)
        shares = self._slices.of_campaign(record.uid, prefix, ended=one_off, limit=MOST)
        runs = self._runs.undecided([record.uid])
        progress = self._counted(record, shares, runs)
        rate = self._rate(record.uid, progress.sent)
        sending = progress.phase in ("deciding", "sending") and rate > 0
        waiting = progress.chosen - progress.sent - progress.failed
        return replace(progress, rate=rate, left=waiting / rate if sending and waiting > 0 else None)

    def _counted(self, record: CampaignRecord, shares: Sequence[SliceShare], runs: Sequence[Run]) -> Progress:
        deciding = [share for share in shares if share.kind is not SliceKind.DELIVER]
        delivering = [share for share in shares if share.kind is SliceKind.DELIVER]
        open_runs = {run.id for run in runs}
        now = [share for share in deciding if share.run in open_runs]
        counts = {name: sum(share.results.get(name, 0) for share in delivering) for name in ENDS}
        return Progress(
            phase=_phase(record, runs, any(share.open for share in delivering)),
            share=sum(map(_done, now)) / sum(map(_width, now)) if now and sum(map(_width, now)) else None,
            evaluated=sum(share.results.get("users", 0) for share in deciding),
            chosen=sum(share.results.get("chosen", 0) for share in deciding),
            sent=counts["sent"],
            failed=counts["failed"] + counts["unknown"] + counts["skipped"],
            rate=0.0,
            left=None,
            at=self._clock.system_now(),
        )

    def _rate(self, uid: str, sent: int) -> float:
        """Return messages a second since the oldest reading of the last `RATED_OVER` seconds; 0 at the first."""
        now = self._clock.monotonic()
        past = self._past.setdefault(uid, deque(maxlen=64))
        while len(past) > 1 and now - past[0][0] > RATED_OVER:
            past.popleft()
        rate = 0.0
        if past and now > past[0][0]:
            rate = max(0.0, (sent - past[0][1]) / (now - past[0][0]))
        past.append((now, sent))
        return rate


def _phase(record: CampaignRecord, runs: Sequence[Run], delivers: bool) -> str:
    match record.state:
        case CampaignState.DRAFT | CampaignState.SCHEDULED:
            return "waiting"
        case CampaignState.PAUSED:
            return "paused"
        case CampaignState.FINISHED | CampaignState.CANCELLED:
            return "ended"
        case CampaignState.LIVE | CampaignState.DRAINING:
            if runs:
                return "deciding"
            return "sending" if delivers else "resting"


def _width(share: SliceShare) -> int:
    return max(0, position_of(share.until) - position_of(share.first))


def _done(share: SliceShare) -> int:
    """Return how much of its range a slice has done; all of it once it has ended."""
    if not share.open:
        return _width(share)
    return 0 if share.cursor is None else max(0, position_of(share.cursor) - position_of(share.first))
