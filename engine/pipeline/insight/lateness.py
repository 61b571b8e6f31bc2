"""Find the campaigns that should have gone on by now and have not, and say why (`engine.decisions.lateness`).

Each search costs a bounded number of indexed queries, whatever the number of enrolments and ended campaigns: of what is
overdue only the oldest is looked for, never how much there is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from engine.clock import Clock, Instant, millis
from engine.decisions.lateness import Circumstances, Overdue, Owed, late
from engine.decisions.routing import route
from engine.domain.campaign import CONTINUOUS, CampaignRecord
from engine.domain.lifecycle import GOING, CampaignState, RunState
from engine.domain.system_view import Late, SystemView
from engine.domain.work import Run, SliceKind
from engine.pipeline.campaigns.compiled_cache import CampaignCache, routing_facts
from engine.pipeline.insight.system_reader import MOST_OPEN, MOST_RECENT, OpenWork
from engine.policy.models import LaneKind
from engine.policy.policyset import PolicySet
from engine.telemetry.events import emit

SOONEST: Final = timedelta(seconds=10)
"""The shortest time after which anything counts as overdue: a tick, a round of dispatch and a turn take as long."""

MOST: Final = 200
"""Campaigns with overdue work that one search finds, of each kind of work."""

WATCHED: Final = (CampaignState.SCHEDULED, CampaignState.LIVE, CampaignState.DRAINING, CampaignState.PAUSED)

EVERY: Final = 10.0
"""Seconds between two searches of the clock, which logs what has become late and what has not been so any more."""


class CampaignReads(Protocol):
    """Campaigns, without their files."""

    def in_states(self, states: Iterable[CampaignState]) -> list[CampaignRecord]:
        """Return every campaign in one of `states`."""


class OverdueMessages(Protocol):
    """Deliveries whose time has come."""

    def overdue(self, before: Instant, limit: int, campaign: str | None = None) -> Mapping[str, Instant]:
        """Return when the oldest delivery of each campaign could first be sent, of those from before `before`."""


class OverdueEvaluations(Protocol):
    """Enrolments that are due."""

    def overdue(self, before: Instant, limit: int, campaign: str | None = None) -> Mapping[str, Instant]:
        """Return since when an enrolment of each campaign is due, of those due since before `before`."""


class UndecidedRuns(Protocol):
    """Runs that are being planned or decided."""

    def undecided(self) -> list[Run]:
        """Return them."""


@dataclass(frozen=True, slots=True)
class _Now:
    """Campaign time and system time of a search, and for how long (ms) campaign time has stood still, if it is set.

    While it stands, all that is due by it could be done since somebody moved it, however far that was.
    """

    campaign: Instant
    system: Instant
    stood: Instant | None

    def since(self, due: Instant) -> float:
        """Return for how many seconds something that was due at campaign time `due` could have been done."""
        return (self.campaign - due if self.stood is None else self.stood) / 1e3

    @property
    def before(self) -> Instant:
        """Return the campaign time before which something must have been due to be overdue."""
        return self.campaign - millis(SOONEST) if self.stood is None else self.campaign + 1


class Lateness:
    """Finds late campaigns. `time` returns campaign time, and since when (system time) it stands, None if it flows."""

    def __init__(
        self,
        *,
        campaigns: CampaignReads,
        work: OpenWork,
        deliveries: OverdueMessages,
        enrolments: OverdueEvaluations,
        runs: UndecidedRuns,
        campaign_cache: CampaignCache,
        policies: Callable[[], PolicySet],
        view: Callable[[], SystemView],
        clock: Clock,
        time: Callable[[], tuple[Instant, Instant | None]],
    ) -> None:
        self._campaigns = campaigns
        self._work = work
        self._deliveries = deliveries
        self._enrolments = enrolments
        self._runs = runs
        self._campaign_cache = campaign_cache
        self._policies = policies
        self._view = view
        self._clock = clock
        self._time = time

    def late(self, workspace: str | None = None, uid: str | None = None) -> list[Late]:
        """Return the late campaigns, the latest first: all, those of a workspace, or one (by uid)."""
        records = {
            record.uid: record
            for record in self._campaigns.in_states(WATCHED)
            if workspace in (None, record.workspace) and uid in (None, record.uid)
        }
        if not records:
            return []
        overdue = self._overdue(records, uid)
        if not overdue:
            return []
        policies = self._policies()
        gate = policies.gates.get("mongodb")
        around = Circumstances(self._view(), None if gate is None else float(gate.at_least))
        found = [late(records[one], what, around) for one, what in overdue.items()]
        return sorted(found, key=lambda one: -one.by)

    def _overdue(self, records: Mapping[str, CampaignRecord], only: str | None) -> dict[str, Overdue]:
        """Return what each campaign owes for longest, if that is longer than its profile's `late_after`."""
        campaign, since = self._time()
        system = self._clock.system_now()
        now = _Now(campaign, system, None if since is None else system - since)
        found: dict[str, list[tuple[Owed, float]]] = defaultdict(list)
        for uid, at in self._deliveries.overdue(now.before, MOST, only).items():
            found[uid].append((Owed.DELIVERY, now.since(at)))
        for uid, at in self._enrolments.overdue(now.before, MOST, only).items():
            found[uid].append((Owed.EVALUATION, now.since(at)))
        for run in self._runs.undecided():
            if run.state is RunState.PLANNING:
                found[run.campaign].append((Owed.RUN, now.since(run.as_of)))
        for uid, waited in self._standing_slices().items():
            found[uid].append((Owed.SLICE, waited))
        for uid, record in records.items():
            found[uid] += self._own(record, now)
        return {uid: what for uid, record in records.items() if (what := self._longest(record, found[uid])) is not None}

    def _longest(self, record: CampaignRecord, owed: Sequence[tuple[Owed, float]]) -> Overdue | None:
        allowed = self._campaign_cache.profile(record).late_after.total_seconds()
        over = [one for one in owed if one[1] > allowed]
        if not over:
            return None
        what, by = max(over, key=lambda one: one[1])
        kind = LaneKind.DELIVER if what is Owed.DELIVERY else LaneKind.DECIDE
        return Overdue(what, by, route(self._policies(), routing_facts(record), suspect=False, kind=kind))

    def _own(self, record: CampaignRecord, now: _Now) -> list[tuple[Owed, float]]:
        """Return what the record itself says: a start or a pass that has passed, and how long it has been stuck."""
        if record.state is CampaignState.SCHEDULED:
            starts = record.starts_at or 0
            return [(Owed.LAUNCH, now.since(starts))] if record.starts_at and starts <= now.campaign else []
        owed = []
        if record.state in GOING:
            if record.kind == CONTINUOUS and record.pass_as_of:
                due = record.pass_as_of + millis(self._campaign_cache.profile(record).pass_every)
                owed += [(Owed.PASS, now.since(due))] if due <= now.campaign else []
            owed += [
                (Owed.PROGRESS, (now.system - stuck.since) / 1e3) for stuck in record.stuck_by.values() if stuck.since
            ]
        return owed

    def _standing_slices(self) -> dict[str, float]:
        """Return how long (s) slices of campaigns have been free, of which none is in work and none ended lately."""
        counted = self._work.open(MOST_OPEN)
        moving = {one.campaign for one in counted if one.held}
        if any(one.oldest for one in counted):
            moving |= {record.campaign for record in self._work.latest(timedelta(minutes=2), MOST_RECENT)}
        waiting: dict[str, float] = {}
        for one in counted:
            if one.oldest is not None and one.campaign not in moving and one.kind is not SliceKind.DELIVER:
                waiting[one.campaign] = max(one.oldest, waiting.get(one.campaign, 0.0))
        return waiting


class LatenessWatch:
    """Logs once when a campaign becomes late, and once when it is on time again; the clock runs it."""

    def __init__(self, find: Callable[[], list[Late]], clock: Clock) -> None:
        self._find = find
        self._clock = clock
        self._searched_at = float("-inf")
        self._late: dict[str, Late] = {}

    def step(self) -> bool:
        """Search if it is time for it; return False, because nothing waits for it. Raises the stores' outages."""
        now = self._clock.monotonic()
        if now - self._searched_at >= EVERY:
            self._searched_at = now
            self.search()
        return False

    def search(self) -> None:
        """Search, and log what has changed. Raises the outages of the stores."""
        found = {one.uid: one for one in self._find()}
        for uid, one in found.items():
            if uid not in self._late or self._late[uid].reason != one.reason:
                emit(
                    "campaign.late",
                    **_labels(one),
                    reason=one.reason,
                    text=f"{one.why}. {one.remedy}",
                    duration=timedelta(seconds=round(one.by)),
                )
        for uid, one in self._late.items():
            if uid not in found:
                emit("campaign.on_time", **_labels(one), reason=one.reason)
        self._late = found


def _labels(one: Late) -> dict[str, str]:
    return {"workspace": one.workspace, "campaign": one.campaign, "campaign_uid": one.uid}
