"""Read the whole installation once: what the map, the pages and the metrics show.

Each read costs a bounded number of queries, whatever the number of enrolments, ended campaigns and viewers. A store
that does not answer takes its own part with it; the rest is still read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from datetime import timedelta
from functools import partial
from typing import Final, Protocol, TypeVar

from engine.clock import Clock, Instant
from engine.domain.campaign import CampaignRecord
from engine.domain.gate import GateView
from engine.domain.lifecycle import CampaignState
from engine.domain.processes import Seen
from engine.domain.slice_record import OpenSlices, SliceRecord
from engine.domain.system_view import (
    ProcessNode,
    QueueView,
    SystemView,
)
from engine.pipeline.feed import loop as feed_loop
from engine.pipeline.insight.liveness import WITHIN, HeldLeases
from engine.pipeline.insight.statistics import QueryStatistics
from engine.pipeline.insight.statistics import queries as merged
from engine.pipeline.insight.system_nodes import Found, Surroundings, lane_of, system_view
from engine.pipeline.scheduler import loop as scheduler_loop
from engine.policy.policyset import PolicySet
from engine.query_metrics import Stretch

MOST_OPEN: Final = 10_000
"""Open slices that are counted; more are rare, and the picture then says less than there is."""

RECENT: Final = timedelta(minutes=2)
MOST_RECENT: Final = 500
"""Ended slices whose waits are shown: the latest, of this time."""

MEASURED: Final = timedelta(minutes=2)
"""How far back the times of a store's calls go."""

MEASURED_EVERY: Final = 5.0
"""Seconds between two readings of those times: processes write them every 10 s."""

PING: Final = 2.0
"""Seconds that a store gets for a round trip."""

LIMIT: Final = 3.0
"""Seconds that MongoDB gets for all queries of one part."""

UNSERVED: Final = frozenset({CampaignState.PAUSED, CampaignState.DRAFT, CampaignState.SCHEDULED})
"""States in which nobody works on a campaign's open slices, by intention."""

T = TypeVar("T")


class OpenWork(Protocol):
    """Open and ended slices (`engine.stores.mongo.lane_work`)."""

    def open(self, limit: int) -> list[OpenSlices]:
        """Count open slices by what routes them."""

    def latest(self, within: timedelta, limit: int) -> list[SliceRecord]:
        """Return the slices that ended last."""


class CampaignReads(Protocol):
    """Campaigns, without their files."""

    def of(self, uids: Iterable[str]) -> dict[str, CampaignRecord]:
        """Return campaigns by uid."""

    def by_state(self) -> dict[str, int]:
        """Count the campaigns of each state."""


class SeenProcesses(Protocol):
    """The processes of the last hour."""

    def seen(self) -> list[Seen]:
        """Return them with their reports."""


class FeedReads(Protocol):
    """The position of the feed."""

    def position(self) -> int:
        """Return the position up to which everything is handled."""

    def now(self) -> int:
        """Return the position of this moment."""


class Stretches(Protocol):
    """The measurements of processes."""

    def since(self, earliest: Instant) -> list[Stretch]:
        """Return the stretches written since `earliest`."""


Queues = Callable[[Iterable[str]], Mapping[str, QueueView]]
"""Returns what Redis holds of lanes. Raises an outage if it does not answer."""


class SystemReader:
    """Reads the installation. Threads may share it.

    `pings` are round trips by store, each raises if the store is away; `outages` are the exceptions of a store that is
    away. `queues` is None in a process that cannot ask the broker. `limit` bounds the time of MongoDB's queries.
    """

    def __init__(
        self,
        *,
        policies: Callable[[], PolicySet],
        surroundings: Surroundings,
        pings: Mapping[str, Callable[[], object]],
        processes: SeenProcesses,
        leases: HeldLeases,
        work: OpenWork,
        campaigns: CampaignReads,
        feed: FeedReads,
        stretches: Stretches,
        gate: Callable[[], GateView | None],
        queues: Callable[[], Queues | None],
        clock: Clock,
        limit: Callable[[float], AbstractContextManager[None]],
        outages: tuple[type[BaseException], ...],
    ) -> None:
        self._policies = policies
        self._surroundings = surroundings
        self._pings = pings
        self._processes = processes
        self._leases = leases
        self._work = work
        self._campaigns = campaigns
        self._feed = feed
        self._stretches = stretches
        self._gate = gate
        self._queues = queues
        self._clock = clock
        self._limit = limit
        self._outages = outages
        self._asked: set[Callable[[], object]] = set()
        self._measured_at = float("-inf")
        self._measured: list[QueryStatistics] = []

    def read(self) -> SystemView:
        """Return the installation as it is now. Raises nothing for stores that are away: they are in `missing`."""
        found, policies = Found(), self._policies()
        found.pings = self._pinged()
        if found.pings.get("mongodb") is not None:
            parts = (self._read_processes, self._read_campaigns, self._read_feed, self._read_work, self._measure)
            for part in parts:
                self._within(partial(part, found))
        if found.pings.get("broker") is not None:
            queues = self._queues()
            if queues is not None:
                found.queues = self._within(lambda: queues(policies.lanes))
            found.gate = self._within(self._gate)
        return system_view(found, policies, self._surroundings, self._clock.system_now())

    def _within(self, read: Callable[[], T]) -> T | None:
        """Return what `read` returns; None if a store that it needs went away meanwhile."""
        try:
            with self._limit(LIMIT):
                return read()
        except self._outages:
            return None

    def _pinged(self) -> dict[str, float | None]:
        """Return the seconds of one round trip to each store, all asked at once; None if it does not answer."""

        def ping(ask: Callable[[], object]) -> float:
            if ask not in self._asked:  # the first one connects, and imports the client
                ask()
                self._asked.add(ask)
            began = self._clock.monotonic()
            ask()
            return self._clock.monotonic() - began

        pool = ThreadPoolExecutor(max(1, len(self._pings)), thread_name_prefix="ping")
        asked = {name: pool.submit(ping, ask) for name, ask in self._pings.items()}
        done, _ = wait(asked.values(), PING)
        pool.shutdown(wait=False)  # one that hangs ends by its client's own limit
        return {
            name: future.result() if future in done and future.exception() is None else None
            for name, future in asked.items()
        }

    def _read_processes(self, found: Found) -> None:
        found.processes = [
            ProcessNode(one.id, one.process, one.lanes, one.since, one.ago.total_seconds(), one.report, one.notes)
            for one in self._processes.seen()
            if one.ago <= WITHIN
        ]
        for name, lease in (("clock", scheduler_loop.LEASE), ("feed", feed_loop.LEASE)):
            left = self._leases.held_for(name)
            found.leads[name] = left is not None and left >= lease - WITHIN

    def _read_campaigns(self, found: Found) -> None:
        found.campaigns = self._campaigns.by_state()

    def _read_feed(self, found: Found) -> None:
        behind = (self._feed.now() >> 32) - (self._feed.position() >> 32)
        found.lag = float(max(0, behind - 1))  # positions are whole seconds: one apart may be a moment

    def _read_work(self, found: Found) -> None:
        counted = self._work.open(MOST_OPEN)
        found.latest = self._work.latest(RECENT, MOST_RECENT)
        records = self._campaigns.of({one.campaign for one in counted} | {one.campaign for one in found.latest})
        found.names = {uid: f"{record.workspace}/{record.name}" for uid, record in records.items()}
        by_lane: dict[str, list[tuple[OpenSlices, bool]]] = defaultdict(list)
        for one in counted:
            record = records.get(one.campaign)
            if record is not None:
                by_lane[lane_of(self._policies(), record, one)].append((one, record.state in UNSERVED))
        found.open = dict(by_lane)

    def _measure(self, found: Found) -> None:
        now = self._clock.monotonic()
        if now - self._measured_at >= MEASURED_EVERY:
            earliest = self._clock.system_now() - int(MEASURED.total_seconds() * 1e3)
            self._measured, self._measured_at = merged(self._stretches.since(earliest)), now
        found.measured = self._measured
