"""Notice what keeps campaigns from going on: mark them as stuck with the reason, and clear the mark once it is fixed.

Slices and runs note their own failures. This module notices a campaign whose file does not fit its workspace, and steps
that the clock itself cannot do for a campaign. It marks nothing that has lasted less than some seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final, TypeAlias, TypeVar

from engine.catalogue.catalogue import Catalogue
from engine.clock import Clock, format_duration, millis
from engine.domain.campaign import CampaignRecord
from engine.domain.lifecycle import CampaignState, RunState
from engine.domain.stuck import StuckBy
from engine.domain.work import Failure, Run, SliceKind, Waiting
from engine.errors import EngineError
from engine.failure_text import reason_of
from engine.pipeline.campaigns.compiled_cache import CampaignCache
from engine.pipeline.ports.campaigns import CampaignStore
from engine.telemetry.events import emit

T = TypeVar("T")
Reasons: TypeAlias = dict[StuckBy, dict[str, str | None]]
"""For each kind of obstacle of a campaign its reasons, each with the slice that caused it."""

LASTING: Final = 3.0
"""Seconds for which a failure must last before its campaign is stuck."""

ATTEMPTS: Final = 3
"""Attempts that must fail before a campaign is stuck: with back-offs of 1 and 2 s the third comes after `LASTING`."""

CALM: Final = 5.0
"""Seconds without a failure after which a clock step counts as fixed although it has had nothing to do since."""

SUSPECT_ERRORS: Final = 5
"""Errors before a suspect slice marks its campaign: until then the poison rule looks for the user who causes them."""

MOST_CHECKED: Final = 100
"""Campaigns compiled in one tick: some tenth of a second."""

KEPT_BY_CLOCK: Final = (StuckBy.FILE, StuckBy.SLICE, StuckBy.RUN, StuckBy.TICK)


def stuck(record: CampaignRecord) -> bool:
    """Return whether a campaign is marked as stuck."""
    return bool(record.stuck_by)


class Obstacles:
    """The obstacles of all campaigns, as one clock knows them. It raises `outages`: no campaign causes them."""

    def __init__(
        self,
        campaigns: CampaignStore,
        campaign_cache: CampaignCache,
        clock: Clock,
        outages: tuple[type[BaseException], ...],
        *,
        attempt_limit: timedelta,
    ) -> None:
        self._campaigns = campaigns
        self._campaign_cache = campaign_cache
        self._clock = clock
        self._outages = outages
        self._attempt_limit = attempt_limit
        self._fits: dict[str, tuple[int, Catalogue]] = {}
        self._unfit: dict[str, tuple[float, str]] = {}
        self._failing: dict[tuple[str, str], tuple[float, float, str]] = {}  # first and last failure (s), reason
        self._checked: tuple[int, str] = (-1, "")
        self._unchecked: deque[str] = deque()
        self._reported: dict[tuple[str, StuckBy], str | None] = {}

    @property
    def unfit(self) -> frozenset[str]:
        """Return the uids of campaigns that do not fit their workspace: they get no runs and no messages."""
        return frozenset(self._unfit)

    def check(self, records: Mapping[str, CampaignRecord], generation: int) -> int:
        """Check which campaigns do not fit their workspace; return how many were checked if some are left, else 0.

        Each tick compiles some of the campaigns that have changed, or whose workspace file has: an installation with
        thousands must not wait for all of them before the clock plans its first run. Campaigns that wait for their
        launch come first.
        """
        seen = (generation, self._campaign_cache.workspaces)
        if seen != self._checked:
            self._checked = seen
            left = [record for record in records.values() if not self._known_to_fit(record)]
            left.sort(key=lambda record: record.state is not CampaignState.SCHEDULED)
            self._unchecked = deque(record.uid for record in left)
        turn = [self._unchecked.popleft() for _ in range(min(len(self._unchecked), MOST_CHECKED))]
        for uid in {*turn, *self._unfit}.intersection(records):
            self._check(records[uid])
        for uid in self._unfit.keys() - records.keys():
            del self._unfit[uid]
        return len(turn) if self._unchecked else 0

    def _known_to_fit(self, record: CampaignRecord) -> bool:
        fitted = self._fits.get(record.uid)
        return fitted is not None and fitted == (
            record.revision,
            self._campaign_cache.known_catalogue(record.workspace),
        )

    def _check(self, record: CampaignRecord) -> None:
        try:
            entry = self._campaign_cache.of(record)
        except EngineError as error:
            since = self._unfit.get(record.uid, (self._clock.monotonic(), ""))[0]
            self._unfit[record.uid] = since, reason_of(error)
        else:
            self._unfit.pop(record.uid, None)
            self._fits[record.uid] = record.revision, entry.catalogue

    def attempt(self, record: CampaignRecord, what: str, do: Callable[[], T], instead: T) -> T:
        """Run a clock step for a campaign; if it raises, note that and return `instead`, so other campaigns go on."""
        key = (record.uid, what)
        try:
            done = do()
        except self._outages:
            raise
        except Exception as error:  # noqa: BLE001 - one bad campaign must not stop the clock of all others
            reason = reason_of(error)
            now = self._clock.monotonic()
            since, _, before = self._failing.get(key, (now, now, ""))
            self._failing[key] = since, now, reason
            if reason != before:
                labels = {"workspace": record.workspace, "campaign": record.name, "campaign_uid": record.uid}
                emit("engine.failed", **labels, process="clock", reason=type(error).__name__, error=error)
            return instead
        failing = self._failing.get(key)
        if failing is not None and (done or self._clock.monotonic() - failing[1] > CALM):
            del self._failing[key]
        return done

    def mark(
        self,
        records: Mapping[str, CampaignRecord],
        marked: Iterable[str],
        waiting: Sequence[Waiting],
        runs: Sequence[Run],
    ) -> None:
        """Mark the campaigns that cannot go on by themselves, and clear the marks of obstacles that are gone.

        `marked` holds the uids of campaigns with a mark, `waiting` the open slices, `runs` the undecided runs.
        """
        reasons = self._reasons(waiting, runs)
        for uid in sorted({*reasons, *marked}.intersection(records)):
            for by in KEPT_BY_CLOCK:
                self._mark(records[uid], by, reasons.get(uid, {}).get(by, {}))

    def _mark(self, record: CampaignRecord, by: StuckBy, reasons: Mapping[str, str | None]) -> None:
        """Mark the campaign with one of the reasons; keep its present reason as long as that still holds."""
        before = record.stuck_by[by].reason if by in record.stuck_by else None
        reason = before if before in reasons else next(iter(reasons), None)
        if reason == before:
            self._reported.pop((record.uid, by), None)
            return
        self._campaigns.set_stuck(record.uid, by, reason)
        if self._reported.get((record.uid, by), "") == reason:
            return  # already emitted: the index of live campaigns does not show the new mark yet
        self._reported[record.uid, by] = reason
        labels = {"workspace": record.workspace, "campaign": record.name, "campaign_uid": record.uid}
        if reason is not None:
            emit("campaign.stuck", **labels, reason=by.value, slice=reasons[reason], text=reason)
        else:
            emit("campaign.unstuck", **labels, reason=by.value)

    def _reasons(self, waiting: Sequence[Waiting], runs: Sequence[Run]) -> dict[str, Reasons]:
        reasons: dict[str, Reasons] = {}
        for uid, by, reason, slice_ in (*self._own(), *self._of_runs(runs), *self._of_slices(waiting)):
            reasons.setdefault(uid, {}).setdefault(by, {}).setdefault(reason, slice_)
        for uid in self._unfit.keys() & reasons.keys():
            # the rest follows from it
            reasons[uid] = {by: slices for by, slices in reasons[uid].items() if by is StuckBy.FILE}
        return reasons

    def _own(self) -> Iterator[tuple[str, StuckBy, str, str | None]]:
        now = self._clock.monotonic()
        for uid, (since, reason) in self._unfit.items():
            if now - since >= LASTING:
                yield uid, StuckBy.FILE, reason, None
        for (uid, what), (since, _, reason) in self._failing.items():
            if now - since >= LASTING:
                yield uid, StuckBy.TICK, f"the clock cannot {what}: {reason}", None

    def _of_runs(self, runs: Sequence[Run]) -> Iterator[tuple[str, StuckBy, str, str | None]]:
        for run in sorted(runs, key=lambda open_run: open_run.id):
            if run.failure is not None and self._lasts(run.failure):
                done = "planned" if run.state is RunState.PLANNING else "closed"
                yield run.campaign, StuckBy.RUN, f"a {run.kind} run cannot be {done}: {run.failure.reason}", None

    def _of_slices(self, waiting: Sequence[Waiting]) -> Iterator[tuple[str, StuckBy, str, str | None]]:
        limit = millis(self._attempt_limit)
        for slice_ in waiting:
            sending = slice_.kind is SliceKind.DELIVER
            lasting = slice_.failure is not None and not slice_.suspect and self._lasts(slice_.failure)
            if lasting or slice_.errors >= SUSPECT_ERRORS:
                reason = "the log says why" if slice_.failure is None else slice_.failure.reason
                yield (
                    slice_.campaign,
                    StuckBy.SLICE,
                    f"{'sending' if sending else 'evaluating'} fails: {reason}",
                    slice_.id,
                )
            elif sending and (slice_.broken_for or 0) > limit:
                longest = format_duration(self._attempt_limit)
                reason = f"slice {slice_.id} was interrupted more than {longest} ago: its deliveries may be attempting"
                yield slice_.campaign, StuckBy.SLICE, reason, slice_.id

    def _lasts(self, failure: Failure) -> bool:
        age = self._clock.system_now() - failure.since
        return failure.count >= ATTEMPTS and age >= LASTING * 1000
