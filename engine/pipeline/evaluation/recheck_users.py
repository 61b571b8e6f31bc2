"""Re-evaluate changed users in every campaign that names what changed, with current data from MongoDB."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Final
from uuid import uuid4

from engine.catalogue.fields import Row
from engine.clock import Clock, Instant
from engine.domain.campaign import CampaignRecord
from engine.domain.enrolment import Enrolment
from engine.domain.keys import AFTER, enrolment_prefix, suffix_of_user, workspace_of
from engine.domain.looks import EVERYTHING, DirtyRange, RecheckRequest
from engine.domain.stuck import StuckBy
from engine.domain.work import AccessPath, Slice, SliceKind
from engine.errors import EngineError
from engine.failpoints import passage
from engine.failure_text import is_about_data, reason_of
from engine.pipeline.campaigns.change_triggers import ChangeTriggers
from engine.pipeline.campaigns.compiled_cache import CampaignCache, Entry
from engine.pipeline.evaluation.evaluate import Evaluation, Evaluator, Origin
from engine.pipeline.loop_failures import LoopFailures
from engine.pipeline.ports.campaigns import CampaignStore, Debts
from engine.pipeline.ports.enrolments import EnrolmentStore
from engine.pipeline.ports.feed import RecheckStore
from engine.pipeline.ports.messaging import Wakeup
from engine.pipeline.ports.user_cache import UserCache
from engine.pipeline.ports.users import UserReads
from engine.pipeline.ports.work import NamedLeases, SliceStore
from engine.telemetry.events import emit

AT_ONCE: Final = 1_000
"""Most users evaluated together."""

LONGEST: Final = 5.0
"""Seconds after which one message ends, so that the lane's other work can run; the clock enqueues another."""

MOST_AHEAD: Final = 86_400_000
"""Milliseconds by which an event may lie in the future and still be waited for: its clock is wrong by at most that.
If somebody has set campaign time, the evaluation waits however far ahead the event is."""

EXPIRE_EVERY: Final = 5.0
"""Most seconds between two searches for requests of dead takers; a third of the lease if that is less."""

RANGE_LEASE: Final = "dirty-ranges"


RESTS: Final = timedelta(seconds=2)
"""Pause of re-evaluation requests after a failure that their users did not cause."""

LASTING: Final = 3.0
"""Seconds for which the evaluations of a campaign must fail before it is marked as stuck."""


class Refused(EngineError):
    """Some campaigns could not evaluate these users, for a reason that the users did not cause."""


class UserRechecker:
    """Re-evaluate changed users: the use case behind the actor `look_at_users`."""

    def __init__(
        self,
        *,
        rechecks: RecheckStore,
        registry: ChangeTriggers,
        campaign_cache: CampaignCache,
        users: UserReads,
        enrolments: EnrolmentStore,
        slices: SliceStore,
        evaluator: Evaluator,
        leases: NamedLeases,
        wakeup: Wakeup,
        clock: Clock,
        stop: Callable[[], bool],
        outages: tuple[type[BaseException], ...],
        lease: timedelta,
        time_is_set: Callable[[], bool],
        owed: Debts,
        campaigns: CampaignStore,
        failures: LoopFailures,
    ) -> None:
        """`lease`: after it, others take over the requests of a dead process; `time_is_set`: campaign time is set."""
        self._owed = owed
        self._campaigns = campaigns
        self._failures = failures
        self._failing: dict[str, float] = {}  # start of the failures (s), by uid
        self._rechecks = rechecks
        self._lease = lease
        self._time_is_set = time_is_set
        self._expired = float("-inf")
        self._outages = outages
        self._registry = registry
        self._campaign_cache = campaign_cache
        self._users = users
        self._enrolments = enrolments
        self._slices = slices
        self._evaluator = evaluator
        self._leases = leases
        self._wakeup = wakeup
        self._clock = clock
        self._stop = stop

    def run(self) -> int:
        """Evaluate waiting users for up to `LONGEST` seconds; return how many. Safe to call twice or for nothing.

        If a batch raises, retry its users one by one, so one bad row cannot block the rest.
        """
        began, count = self._clock.monotonic(), 0
        while not self._stop() and self._clock.monotonic() - began < LONGEST:
            taken = self._rechecks.take(AT_ONCE, self._lease, self._clock.campaign_now())
            if not taken:
                return count + self._ranges(began)
            done = self._all_of(taken)
            passage("look.decided")
            self._rechecks.done(done)
            count += len(done)
        return count

    def _all_of(self, taken: Sequence[RecheckRequest]) -> Sequence[RecheckRequest]:
        """Evaluate all users together, or one by one if that raises; return the requests that are done."""
        try:
            early = self.at(taken)
        except self._outages:
            raise
        except Exception as error:  # noqa: BLE001 - one user's data must not block the others
            if not is_about_data(error):
                self._rechecks.rest(taken, RESTS)
                self._tell(error)
                return ()
            if len(taken) == 1:
                emit("engine.failed", process="looks", reason=type(error).__name__, error=error)
                return ()
            return [request for each in taken for request in self._all_of([each])]
        self._failures.worked("looks")
        self._rechecks.put_off({request: early[request.user] for request in taken if request.user in early})
        return [request for request in taken if request.user not in early]

    def at(self, taken: Sequence[RecheckRequest]) -> dict[str, Instant]:
        """Evaluate these users in every concerned campaign; return when to evaluate the users for whom it is too early.

        A user can have events later than campaign time: they came before somebody advanced it, or another clock is
        ahead. Such events must not count yet, but aggregates count them all. So the evaluation waits until the last of
        them has passed.
        """
        self._registry.refresh()
        names = {request.user: request.names for request in taken}
        groups: dict[str, list[str]] = defaultdict(list)
        for key in sorted(names):
            groups[workspace_of(key)].append(key)
        early: dict[str, Instant] = {}
        for workspace, keys in groups.items():
            early |= self._evaluate(workspace, keys, names, f"look/{min(request.mark for request in taken)}")
        return early

    def _evaluate(
        self, workspace: str, keys: Sequence[str], names: Mapping[str, frozenset[str]], mark: str
    ) -> dict[str, Instant]:
        keys_of: dict[str, list[str]] = defaultdict(list)
        for key in keys:
            for uid in self._registry.concerned(workspace, names[key]):
                keys_of[uid].append(key)
        entries = {uid: entry for uid in keys_of if (entry := self._registry.entry(uid)) is not None}
        for uid in keys_of.keys() - entries.keys():
            self._owed.owe(uid)  # it does not fit its workspace: the clock evaluates everybody once it fits
        catalogue = next(
            (concerned.catalogue for concerned in entries.values()), self._campaign_cache.known_catalogue(workspace)
        )
        if catalogue is None:
            return {}
        as_of = self._clock.campaign_now()
        documents = self._users.read_keys(keys, catalogue.projection())
        rows = {raw["_id"]: catalogue.row(raw) for raw in documents}
        early = self._early(rows.values(), as_of)
        if not entries:
            return early  # users who are early wait for their time even if no campaign fits now
        enrolments = self._enrolments.latest_in(list(entries), [key for key in keys if key not in early])
        chosen, refused = 0, None
        for uid, entry in entries.items():
            mine = [key for key in keys_of[uid] if key not in early]
            try:
                counts = self._campaign(entry, mine, rows, enrolments, mark, as_of)
            except self._outages:
                raise
            except Exception as error:
                if is_about_data(error):
                    raise
                self._failed(entry.record, error)
                refused = error
                continue
            self._worked(entry.record)
            chosen += counts["chosen"]
        if chosen:
            self._wakeup.ring()
        if refused is not None:
            raise Refused from refused
        return early

    def _tell(self, error: Exception) -> None:
        cause = error.__cause__ if isinstance(error, Refused) and isinstance(error.__cause__, Exception) else error
        emit("engine.failed", process="looks", reason=type(cause).__name__, error=cause)
        self._failures.failed("looks", cause)

    def _failed(self, record: CampaignRecord, error: Exception) -> None:
        """Mark a campaign as stuck once its evaluations have failed for `LASTING` seconds."""
        since = self._failing.setdefault(record.uid, self._clock.monotonic())
        if self._clock.monotonic() - since >= LASTING:
            reason = f"evaluating changed users fails: {reason_of(error)}"
            self._campaigns.set_stuck(record.uid, StuckBy.CHANGE, reason)

    def _worked(self, record: CampaignRecord) -> None:
        if self._failing.pop(record.uid, None) is not None or StuckBy.CHANGE in record.stuck_by:
            self._campaigns.set_stuck(record.uid, StuckBy.CHANGE, None)

    def _early(self, rows: Iterable[Row], as_of: Instant) -> dict[str, Instant]:
        """Return the users with events after `as_of`, with the time of their last event."""
        last = {row.key: max(part[2] for part in row.e if part is not None) for row in rows if any(row.e)}
        ahead = {key: at for key, at in last.items() if at > as_of}
        if not ahead or self._time_is_set():
            return ahead
        return {key: at for key, at in ahead.items() if at - as_of <= MOST_AHEAD}

    def _campaign(
        self,
        entry: Entry,
        keys: Sequence[str],
        rows: Mapping[str, Row],
        enrolments: Mapping[tuple[str, str], Enrolment],
        mark: str,
        as_of: Instant,
    ) -> Counter[str]:
        """Evaluate users in one campaign: those who are or were in it, and those who may enter."""
        began = self._clock.monotonic()
        record = entry.record
        campaign = entry.compiled.at_state(record, launching=False)
        inside = [key for key in keys if (record.uid, key) in enrolments]
        if campaign.only_converts:
            inside = [key for key in inside if enrolments[record.uid, key].converted_at is None]
        evaluations = [
            Evaluation(enrolment.suffix, rows.get(key), enrolment)
            for key in inside
            for enrolment in (enrolments[record.uid, key],)
        ]
        if campaign.intake_open:
            strangers = [rows[key] for key in keys if key in rows and (record.uid, key) not in enrolments]
            may = campaign.candidates(None, as_of).living(strangers, as_of) if strangers else []
            evaluations += [Evaluation(suffix_of_user(row.key), row, None) for row in may]
        if not evaluations:
            return Counter()
        decisions = self._evaluator.evaluate(campaign, self._campaign_cache.profile(record), evaluations, as_of)
        origin = Origin(f"{enrolment_prefix(record.workspace, record.uid)}{mark}", as_of)
        counts = self._evaluator.record(campaign, origin, evaluations, decisions)
        emit(
            "looks.decided",
            workspace=record.workspace,
            campaign=record.name,
            campaign_uid=record.uid,
            slice=origin.id,
            as_of=as_of,
            users=len(evaluations),
            duration=timedelta(seconds=self._clock.monotonic() - began),
            **dict(counts),
        )
        return counts

    def _ranges(self, began: float) -> int:
        """Evaluate the users of dirty ranges batch by batch; a lease lets one process at a time do it."""
        owner, count = uuid4().hex, 0
        if not self._rechecks.ranges(1) or self._leases.hold(RANGE_LEASE, owner, self._lease) is None:
            return 0
        try:
            while not self._stop() and self._clock.monotonic() - began < LONGEST:
                dirty = next(iter(self._rechecks.ranges(1)), None)
                if dirty is None or self._leases.hold(RANGE_LEASE, owner, self._lease) is None:
                    break
                count += self._range(dirty)
        except Exception as error:
            if isinstance(error, self._outages) or is_about_data(error):
                self._leases.give_up(RANGE_LEASE, owner)
                raise
            self._tell(error)  # keeps the lease: the range rests until it runs out
        else:
            self._leases.give_up(RANGE_LEASE, owner)
        return count

    def _range(self, dirty: DirtyRange) -> int:
        """Evaluate one batch of a range. If a change resets the range's cursor meanwhile, the range starts again."""
        first = dirty.first if dirty.cursor is None else dirty.cursor + AFTER
        documents = self._users.read_range(dirty.workspace, first, dirty.until, AT_ONCE, {"_id": 1})
        if documents:
            requests = [RecheckRequest(raw["_id"], dirty.names, dirty.mark) for raw in documents]
            early = self.at(requests)
            if early:
                self._rechecks.add(dict.fromkeys(early, dirty.names), dirty.mark)
                self._rechecks.put_off({request: early[request.user] for request in requests if request.user in early})
        if len(documents) < AT_ONCE:
            self._rechecks.clean(dirty)
        else:
            self._rechecks.move(dirty, suffix_of_user(documents[-1]["_id"]))
        return len(documents)

    def waiting(self, now: Instant) -> bool:
        """Whether re-evaluation requests or dirty ranges wait at campaign time `now` that nobody holds."""
        return self._rechecks.waiting(now)

    def suspects(self) -> int:
        """Turn requests whose takers died repeatedly into slices of one user under the poison rule; return how many."""
        if self._clock.monotonic() - self._expired < min(EXPIRE_EVERY, self._lease.total_seconds() / 3):
            return 0
        self._expired = self._clock.monotonic()
        self._rechecks.expire()
        requests = self._rechecks.suspects(AT_ONCE)
        if not requests:
            return 0
        self._registry.refresh()
        for request in requests:
            workspace, suffix = workspace_of(request.user), suffix_of_user(request.user)
            uids = self._registry.concerned(workspace, request.names)
            entries = [entry for uid in uids if (entry := self._registry.entry(uid)) is not None]
            for uid in uids - {entry.record.uid for entry in entries}:
                self._owed.owe(uid)
            as_of = self._clock.campaign_now()
            self._slices.add([suspect_slice(entry.record, suffix, request.mark, as_of) for entry in entries])
        self._rechecks.done(requests)
        return len(requests)


class StaleRowRecheck:
    """Request the re-evaluation of users whose cached row was stale (`engine.pipeline.ports.user_cache.Recheck`)."""

    def __init__(self, cache: UserCache, rechecks: RecheckStore) -> None:
        self._cache = cache
        self._rechecks = rechecks

    def changed(self, workspace: str, rows: Sequence[Row], since: int | None) -> int:
        """Request the re-evaluation of those of `rows` whose revision changed; return how many.

        Do nothing if the cache was not refreshed since its counter of refreshes was `since`.
        """
        if since is not None and self._cache.changes(workspace) == since:
            return 0
        newer = self._cache.revisions(workspace, [row.key for row in rows])
        old = [row.key for row in rows if newer.get(row.key) != row.rev]
        self._rechecks.add({key: frozenset({EVERYTHING}) for key in old}, "recheck")
        return len(old)


def suspect_slice(record: CampaignRecord, suffix: str, mark: str, as_of: Instant) -> Slice:
    """Return a slice over one user, for the suspects' lane."""
    return Slice(
        f"{enrolment_prefix(record.workspace, record.uid)}look/{mark}/{suffix}",
        None,
        record.workspace,
        record.uid,
        SliceKind.EVERYBODY,
        as_of,
        suffix,
        suffix + AFTER,
        suspect=True,
        path=AccessPath.SCAN,
    )
