"""Run a slice under a lease: claim it, process it in checkpointed batches, close it.

MongoDB's clock decides when a lease ends. The holder measures on its own monotonic clock, from before the claim, and
stops with a margin. So it never writes under a lease that has run out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from threading import get_ident
from typing import Final
from uuid import uuid4

from engine.catalogue.catalogue import Catalogue
from engine.clock import Clock
from engine.decisions.poison import Again, Verdict, after_error, after_overrun, after_refusal
from engine.domain.lifecycle import SliceState
from engine.domain.work import Slice, SliceKind
from engine.errors import EngineError
from engine.failpoints import passage
from engine.failure_text import is_about_data, reason_of
from engine.pipeline.campaigns.compiled_cache import Entry
from engine.pipeline.campaigns.event_labels import slice_labels
from engine.pipeline.gate.bulk_gate import BulkGate
from engine.pipeline.ports.messaging import Wakeup
from engine.pipeline.ports.user_cache import CachedRows
from engine.pipeline.ports.work import Poison, SliceStore
from engine.query_metrics import working_on
from engine.telemetry.events import emit

TURN: Final = timedelta(seconds=5)
"""How long a worker processes a slice before it releases it for others; a worker claims the rest again later. It is a
fraction of every lane's time limit, so that the limit never interrupts a healthy slice."""

MARGIN: Final = 0.2
"""Share of a lease that the holder leaves unused, for clock differences and a slow round trip."""

SHUT: Final = timedelta(seconds=2)
"""How long a slice rests that was released because a person has closed the gate."""


TOO_SLOW: Final = "a batch exceeds the time limit of its lane (time_limit in policies/lanes.yaml)"
"""The failure of a slice that its lane's time limit ended; for a slice of one user it makes the campaign stuck."""


class LeaseLost(EngineError):
    """The lease of this slice ran out; another worker continues from its last checkpoint."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Result of a batch: the cursor after it (None: the range is finished) and the counts to add."""

    cursor: str | None
    counts: Counter[str]


@dataclass
class Scan:
    """An open scan of the user cache: its batches, its epoch, the bound that it has reached, and its catalogue."""

    batches: Iterator[CachedRows]
    epoch: str | None
    reached: str
    catalogue: Catalogue | None = None


@dataclass
class Hold:
    """A slice under a lease. Its holder trusts the lease until `until` on its own monotonic clock (s).

    `guarded_at` is the time of the last guard check (s on the same clock). `entry` is the campaign, with the guard
    check after which it was read. `worked` says whether a batch was done, `ahead` whether one was done since the last
    checkpoint. `scan` is the cache scan that the batches come from. `over_at` is the end of the turn. `chosen` counts
    the deliveries from bound `chosen_from` on that still need a delivering slice. `overran` is True once the time
    limit of the lane has ended the hold.
    """

    slice: Slice
    token: str
    until: float
    counts: Counter[str]
    guarded_at: float = float("-inf")
    ahead: bool = False
    worked: bool = False
    entry: tuple[float, Entry] | None = None
    scan: Scan | None = None
    over_at: float = float("inf")
    chosen: int = 0
    chosen_from: str | None = None
    overran: bool = False


class SliceWorker:
    """Process slices under leases.

    `stop` says between batches whether this process is shutting down. `outages` are the exceptions of a store that does
    not answer; they do not count against a slice. `name_of` returns the campaign name of a uid. `time_left` returns the
    seconds that the lane's time limit leaves this thread (None: no limit). A batch may take only milliseconds, so the
    worker asks the guard and writes the cursor at most once per `pace`. The store calls of a batch pass `gate`; while
    it is closed, slices are released and rest for `SHUT`.
    """

    def __init__(
        self,
        slices: SliceStore,
        poison: Poison,
        clock: Clock,
        wakeup: Wakeup,
        *,
        lease: timedelta,
        pace: timedelta,
        stop: Callable[[], bool],
        outages: tuple[type[BaseException], ...],
        name_of: Callable[[str], str],
        gate: BulkGate,
        time_left: Callable[[], float | None] = lambda: None,
    ) -> None:
        self.gate = gate
        self._slices = slices
        self._poison = poison
        self._clock = clock
        self._wakeup = wakeup
        self._lease = lease
        self._pace = pace.total_seconds()
        self._stop = stop
        self._outages = outages
        self._lost: tuple[type[BaseException], ...] = (LeaseLost, *outages)
        self._name_of = name_of
        self._time_left = time_left
        self._holds: dict[int, Hold] = {}

    def work(
        self,
        slice_id: str,
        guard: Callable[[Slice], str | None],
        batch: Callable[[Hold], Progress],
        *,
        turn: timedelta = TURN,
    ) -> Slice | None:
        """Process a slice until it ends, or `guard`, a stop or its `turn` interrupts it; return it if it was closed.

        The worker asks `guard` before a batch, at most once per `pace`; a reason that it returns releases the slice.
        `batch` processes the next part of the slice from its cursor. An exception of a batch counts against the slice,
        which is retried after a back-off. `LeaseLost` and the outages of a store do not count. A deciding slice that
        exceeds the time limit of its lane is released, and halved before its next claim.
        """
        hold = self._claim(slice_id, turn)
        if hold is None:
            return None
        self._holds[get_ident()] = hold
        try:
            with working_on(hold.slice.campaign, self._name_of(hold.slice.campaign), self.gate):
                return self._batches(hold, guard, batch)
        except LeaseLost:
            if not hold.overran:
                emit("slice.released", **self._labels(hold.slice), reason="lease_lost")
        except self._outages as error:
            emit("slice.released", **self._labels(hold.slice), reason="store_away", error=error)
            self._give_back(hold, broken=True)
        except Exception as error:  # noqa: BLE001 - one user's data must not end the worker
            emit("slice.failed", **self._labels(hold.slice), reason=type(error).__name__, error=error)
            self._failed(hold, error)
        except BaseException as error:  # the interrupt of a time limit, after `overrunning` released the slice
            if not hold.overran or isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
        finally:
            self._holds.pop(get_ident(), None)
        return None

    def trusts_until(self, thread: int) -> float | None:
        """Return until when (s, monotonic) a thread's deciding slice is under its lease; None if it holds none.

        A batch may take no longer: its writes would come too late.
        """
        hold = self._holds.get(thread)
        return None if hold is None or hold.slice.kind is SliceKind.DELIVER else hold.until

    def overrunning(self, thread: int) -> Callable[[], None] | None:
        """Return how to release the deciding slice of a thread whose time is over; None if the thread holds none.

        Ask while the thread is known to exceed its time limit. Another thread makes the release, so it works even if
        the holder cannot be interrupted; the holder then writes nothing more.
        """
        hold = self._holds.get(thread)
        if hold is None or hold.slice.kind is SliceKind.DELIVER:
            return None
        hold.overran, hold.until = True, float("-inf")

        def release() -> None:
            try:
                self._overran(hold)
            except self._outages:
                return  # the lease runs out by itself

        return release

    def _overran(self, hold: Hold) -> None:
        """Release a slice that exceeded its lane's time limit; the clock halves it before it is claimed again."""
        slice_ = hold.slice
        again = after_overrun(errors=slice_.errors, overruns=slice_.overruns)
        released = self._slices.release(
            slice_.id,
            hold.token,
            after=again.after,
            suspect=again.suspect,
            deaths=again.deaths,
            errors=again.errors,
            broken=True,
            failure=TOO_SLOW,
            overran=True,
        )
        if released:
            emit(
                "slice.released",
                **self._labels(slice_),
                reason="time_limit",
                first=slice_.first if slice_.cursor is None else slice_.cursor,
                until=slice_.until,
            )
            self._wakeup.ring()

    def _labels(self, slice_: Slice) -> dict[str, str]:
        return slice_labels(slice_, self._name_of(slice_.campaign))

    def _claim(self, slice_id: str, turn: timedelta) -> Hold | None:
        began = self._clock.monotonic()
        token = uuid4().hex
        slice_ = self._slices.claim(slice_id, token, self._lease)
        if slice_ is None:
            return None
        emit("slice.claimed", **self._labels(slice_), attempt=str(slice_.attempt), as_of=slice_.as_of)
        lasts = self._lease.total_seconds() * (1 - MARGIN)
        hold = Hold(slice_, token, began + lasts, Counter(slice_.results))
        hold.over_at = began + min(turn.total_seconds(), lasts / 2)
        return hold

    def _batches(
        self, hold: Hold, guard: Callable[[Slice], str | None], batch: Callable[[Hold], Progress]
    ) -> Slice | None:
        while True:
            over = self._clock.monotonic() - hold.guarded_at >= self._pace
            if over and hold.ahead:
                self._checkpoint(hold)
            reason = "stopping" if self._stop() else guard(hold.slice) if over else None
            if reason is None and self.gate.closed:
                reason = "gate_closed"
            if reason is None and hold.worked and self._clock.monotonic() >= hold.over_at:
                reason = "turn_over"
            if reason != "stopping" and hold.worked and self._limit_reached(hold):
                if hold.ahead:
                    self._checkpoint(hold)
                hold.overran = True
                self._overran(hold)
                return None
            if reason is not None:
                self._give_back(hold, after=SHUT if reason == "gate_closed" else None)
                emit("slice.released", **self._labels(hold.slice), reason=reason)
                return None
            if over:
                hold.guarded_at = self._clock.monotonic()
            progress = batch(hold)
            passage("slice.recorded")
            hold.counts += progress.counts
            if self._clock.monotonic() >= hold.until:
                raise LeaseLost
            if progress.cursor is None:
                return self._close(hold)
            hold.slice = replace(hold.slice, cursor=progress.cursor, errors=0)
            hold.ahead = hold.worked = True

    def _limit_reached(self, hold: Hold) -> bool:
        """Whether a deciding slice has used up the time limit of its lane."""
        left = self._time_left() if hold.slice.kind is not SliceKind.DELIVER else None
        return left is not None and left <= 0

    def _checkpoint(self, hold: Hold) -> None:
        """Write the cursor and the counts of the finished batches, and renew the lease."""
        renewed = self._clock.monotonic()
        cursor = hold.slice.cursor or hold.slice.first
        if not self._slices.checkpoint(hold.slice.id, hold.token, cursor, hold.counts, self._lease):
            raise LeaseLost
        hold.until = renewed + self._lease.total_seconds() * (1 - MARGIN)
        hold.ahead = False
        passage("slice.checkpointed")

    def _close(self, hold: Hold) -> Slice:
        if not self._slices.close(hold.slice.id, hold.token, SliceState.DONE, hold.counts):
            raise LeaseLost
        passage("slice.closed")
        self._wakeup.ring()
        return replace(hold.slice, state=SliceState.DONE, results=dict(hold.counts))

    def _give_back(self, hold: Hold, *, broken: bool = False, after: timedelta | None = None) -> None:
        slice_ = hold.slice
        try:
            if hold.ahead:
                self._checkpoint(hold)
            self._slices.release(
                slice_.id,
                hold.token,
                after=after,
                suspect=slice_.suspect,
                deaths=slice_.deaths,
                errors=slice_.errors,
                broken=broken,
            )
        except self._lost:
            return  # the lease runs out by itself
        self._wakeup.ring()

    def _failed(self, hold: Hold, error: BaseException) -> None:
        slice_ = hold.slice
        try:
            if hold.ahead:
                self._checkpoint(hold)
            users = self._poison.users_left(slice_) if slice_.suspect else 0
            verdict: Verdict = after_refusal(suspect=slice_.suspect, deaths=slice_.deaths, errors=slice_.errors)
            if is_about_data(error):
                verdict = after_error(
                    suspect=slice_.suspect, deaths=slice_.deaths, errors=slice_.errors, users=users, lease=self._lease
                )
            again = verdict if isinstance(verdict, Again) else Again(True, slice_.deaths + 1, slice_.errors + 1, None)
            self._slices.release(
                slice_.id,
                hold.token,
                after=again.after,
                suspect=again.suspect,
                deaths=again.deaths,
                errors=again.errors,
                broken=True,
                failure=reason_of(error),
            )
            if again is not verdict:
                self._treat(slice_)
        except self._lost:
            return  # the lease runs out by itself
        self._wakeup.ring()

    def _treat(self, slice_: Slice) -> None:
        """Treat a suspect now. If that raises (MongoDB refuses its user's enrolment), the dispatcher tries again."""
        try:
            self._poison.treat(slice_.id)
        except self._lost:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            emit("slice.failed", **self._labels(slice_), reason=type(error).__name__, error=error)
