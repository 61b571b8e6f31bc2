"""Read the metrics of the whole installation, from one place: every process that asks gets the same.

One read costs a bounded number of queries, whatever the number of enrolments, campaigns and viewers. A store that is
away takes its metrics with it; all others are still read. `engine.telemetry.exposition` writes the result as text.
"""

from __future__ import annotations

import platform
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from engine.clock import Clock
from engine.domain.campaign_progress import TallyTotals
from engine.domain.gate import GateState, GateView, limit_in_force
from engine.domain.metric_totals import QUERY_BOUNDS, TURN_BOUNDS, CampaignCost, FoldedSlices, NamedCost, QueryTotal
from engine.domain.processes import Seen
from engine.domain.system_view import FleetNode, LaneNode, Late, Level, ProducerNode, SystemView, Verdict
from engine.pipeline.ports.deliveries import DeliveryStore
from engine.pipeline.ports.enrolments import EnrolmentStore
from engine.pipeline.ports.feed import RecheckStore
from engine.pipeline.ports.tallies import TallyReads, TotalReads
from engine.pipeline.ports.work import RunStore
from engine.telemetry.exposition import Samples, Value
from engine.telemetry.metric_types import Labels

TOP: Final = 20
"""Campaigns whose cost is told one by one."""

FRESH: Final = 1.0
"""Seconds for which one reading answers everybody who asks."""

LIMIT: Final = 3.0
"""Seconds that MongoDB gets for all queries of one part."""

OUTCOMES: Final = ("sent", "retried", "failed", "unknown")
"""How an attempt to send a message ends."""

ALIVE: Final = 10.0
"""Seconds after which a process without a sign of life no longer counts."""

LEVELS: Final = {Level.UNKNOWN: -1, Level.IDLE: 0, Level.FINE: 1, Level.STRAINED: 2, Level.FAILING: 3}

Found = dict[str, dict[Labels, Value]]
Part = Callable[[], Found]


class Counters(Protocol):
    """The sums of named queries (`engine.pipeline.insight.counter_folding.QueryCounters`)."""

    def read(self) -> Mapping[str, QueryTotal] | None:
        """Return the sums by query."""


class Skews(Protocol):
    """How far clocks are from MongoDB's (`engine.stores.clock_offsets`)."""

    def read(self, *, broker: bool = True) -> Mapping[str, float]:
        """Return the difference of each clock (s), that of the broker only if wanted."""


class SeenProcesses(Protocol):
    """The living processes."""

    def seen(self) -> list[Seen]:
        """Return the processes alive within the last hour."""


@dataclass(frozen=True, slots=True)
class OpenWork:
    """The stores that know whether work is open."""

    runs: RunStore
    deliveries: DeliveryStore
    enrolments: EnrolmentStore
    rechecks: RecheckStore
    clock: Clock

    def read(self) -> Mapping[str, bool]:
        """Return whether there is open work of each kind: four queries, each by an index and for one document."""
        now = self.clock.campaign_now()
        return {
            "runs": bool(self.runs.undecided()),
            "deliveries": self.deliveries.has_outgoing(None, None),
            "due": self.enrolments.first_due_campaign(now, []) is not None,
            "rechecks": self.rechecks.any(now),
        }


class MetricsReader:
    """Reads all metrics. `pings` tells which stores answer, `view` reads the picture of the whole installation.

    `late` returns the campaigns that are late. A process without one of these shows no metrics from it. `limit` bounds
    the time of MongoDB's queries inside (s); `outages` are the exceptions of stores that are away.
    """

    def __init__(
        self,
        *,
        version: str,
        policy: Callable[[], str],
        pings: Callable[[], Mapping[str, bool]],
        view: Callable[[], SystemView] | None,
        late: Callable[[], Sequence[Late]] | None,
        tallies: TallyReads,
        totals: TotalReads,
        queries: Counters,
        open_work: OpenWork,
        processes: SeenProcesses,
        skews: Skews,
        clock: Clock,
        limit: Callable[[float], AbstractContextManager[None]],
        outages: tuple[type[BaseException], ...],
    ) -> None:
        self._version = version
        self._policy = policy
        self._pings = pings
        self._view = view
        self._late = late
        self._tallies = tallies
        self._totals = totals
        self._queries = queries
        self._open_work = open_work
        self._processes = processes
        self._skews = skews
        self._clock = clock
        self._limit = limit
        self._outages = outages
        self._reading = threading.Lock()
        self._read: Samples = {}
        self._read_at = float("-inf")

    def read(self) -> Samples:
        """Return the metrics, at most `FRESH` s old."""
        with self._reading:
            if self._clock.monotonic() - self._read_at >= FRESH:
                self._read = self._read_all()
                self._read_at = self._clock.monotonic()
            return self._read

    def _read_all(self) -> Samples:
        began = self._clock.monotonic()
        up = self._pings()
        build = {(self._version, platform.python_version(), self._policy()): 1.0}
        found: Found = {"tidegate_build_info": build}  # type: ignore[dict-item]
        found["tidegate_up"] = {(store,): float(answers) for store, answers in up.items()}
        parts: list[Part] = [] if self._view is None else [partial(self._picture, self._view)]
        if up.get("mongodb"):
            parts += [self._counts, self._sums, self._query_sums, self._work]
            parts += [partial(self._clocks, broker=up.get("broker", False))]
            parts += [] if self._late is None else [partial(self._lateness, self._late)]
        for part in parts:
            for name, values in self._guarded(part).items():
                found.setdefault(name, {}).update(values)
        found["tidegate_scrape_seconds"] = {(): self._clock.monotonic() - began}
        return found

    def _guarded(self, part: Part) -> Found:
        """Return what a part reads; nothing if a store that it needs went away meanwhile."""
        try:
            with self._limit(LIMIT):
                return part()
        except self._outages:
            return {}

    def _picture(self, view: Callable[[], SystemView]) -> Found:
        return picture(view(), self._clock.system_now())

    def _counts(self) -> Found:
        return counts(self._tallies.totals(), self._clock.system_now())

    def _sums(self) -> Found:
        folded = self._totals.slices()
        return {} if folded is None else {**sums(folded), **costs(self._tallies.dearest(TOP), folded.cost)}

    def _query_sums(self) -> Found:
        read = self._queries.read()
        return {} if read is None else query_sums(read)

    def _work(self) -> Found:
        return {"tidegate_open_work": {(kind,): float(is_open) for kind, is_open in self._open_work.read().items()}}

    def _lateness(self, late: Callable[[], Sequence[Late]]) -> Found:
        return lateness(late())

    def _clocks(self, *, broker: bool) -> Found:
        living = [process for process in self._processes.seen() if process.ago.total_seconds() < ALIVE]
        skews = dict(self._skews.read(broker=broker))
        for process in living:
            worst = skews.get(process.process, 0.0)
            skews[process.process] = max(worst, process.skew, key=abs)
        return {"tidegate_clock_skew_seconds": {(name,): skew for name, skew in skews.items()}}


def picture(view: SystemView, now: int) -> Found:
    """Return the metrics of lanes, fleets, producers, stores, channels, campaigns and the gate at `now` (ms)."""
    found: Found = defaultdict(dict)
    found["tidegate_view_age_seconds"][()] = max(0.0, (now - view.at) / 1e3)
    for lane in view.lanes:
        _put(found, "lane_messages", [((lane.name, state), getattr(lane, state)) for state in _QUEUED])
        _put(found, "lane_slices", [((lane.name, "free"), lane.slices), ((lane.name, "held"), lane.held)])
        _put(found, "lane_oldest_seconds", [((lane.name,), _oldest(lane))])
    _rates(found, view)
    for fleet in view.fleets:
        _fleet(found, fleet)
    in_one = sum(len(producer.processes) for producer in view.producers if producer.name == "run")
    for producer in view.producers:
        alive = len(producer.processes) or (in_one if producer.name in ("clock", "feed") else 0)
        _put(found, "producer_processes", [((producer.name,), alive)])
        if producer.name == "feed":
            _put(found, "feed_lag_seconds", [((), producer.lag)])
    for store in view.stores:
        _put(found, "store_ping_seconds", [((store.name,), store.ping)])
        _put(found, "store_calls_per_second", [((store.name,), store.rate)])
        _put(found, "store_failed_calls_per_second", [((store.name,), store.failed)])
    for channel in view.channels:
        known = {**dict.fromkeys(OUTCOMES, 0.0), **channel.rates}  # an average needs the zeros as well
        rates = [((channel.name, outcome), rate) for outcome, rate in known.items()]
        _put(found, "channel_deliveries_per_second", rates)
        _put(found, "channel_limit_per_second", [((channel.name,), channel.limit)])
    _put(found, "campaigns", [((state,), count) for state, count in view.campaigns.items()])
    for part, name, verdict in _verdicts(view):
        _put(found, "level", [((part, name), LEVELS[verdict.level])])
    if view.gate is not None:
        found.update(gate(view.gate, now))
    return dict(found)


_QUEUED: Final = ("ready", "delayed", "taken", "dead")


def _oldest(lane: LaneNode) -> float | None:
    """Return the age of the oldest waiting work: 0 if nothing waits, None if nobody knows."""
    known = lane.slices is not None or lane.ready is not None
    return lane.oldest if lane.oldest is not None else (0.0 if known else None)


def _put(found: Found, name: str, values: Iterable[tuple[Labels, float | None]]) -> None:
    """Add values to a metric, without those that are not known."""
    for labels, value in values:
        if value is not None:
            found.setdefault(f"tidegate_{name}", {})[labels] = float(value)


def _rates(found: Found, view: SystemView) -> None:
    """Sum what the processes report of themselves, by lane, and their memory by kind."""
    living = {process.id: process for fleet in view.fleets for process in fleet.processes}
    living |= {process.id: process for producer in view.producers for process in producer.processes}
    memory: dict[str, float] = defaultdict(float)
    rates: dict[tuple[str, str], float] = {}
    for lane in view.lanes:
        rates |= {(what, lane.name): 0.0 for what in ("slices", "batches", "users")}
    for process in living.values():
        memory[process.kind] += process.report.memory
        for name, rate in process.report.rates.items():
            what, _, lane_name = name.partition(".")
            if (what, lane_name) in rates:
                rates[what, lane_name] += rate
    _put(found, "process_memory_bytes", [((kind,), used) for kind, used in memory.items() if used])
    for (what, lane_name), rate in rates.items():
        _put(found, f"lane_{what}_per_second", [((lane_name,), rate)])


def _fleet(found: Found, fleet: FleetNode) -> None:
    living = len(fleet.processes)
    _put(found, "fleet_processes", [((fleet.name,), living)])
    _put(found, "fleet_processes_wanted", [((fleet.name,), fleet.wanted)])
    _put(found, "fleet_threads", [((fleet.name,), sum(process.report.threads for process in fleet.processes))])
    _put(found, "fleet_busy_threads", [((fleet.name,), fleet.busy)])


def _verdicts(view: SystemView) -> Iterable[tuple[str, str, Verdict]]:
    nodes: Sequence[tuple[str, Iterable[LaneNode | FleetNode | ProducerNode]]] = (
        ("lane", view.lanes),
        ("fleet", view.fleets),
        ("producer", view.producers),
    )
    for part, of_kind in nodes:
        for node in of_kind:
            yield part, node.name, node.verdict
    for store in view.stores:
        yield "store", store.name, store.verdict
    for channel in view.channels:
        yield "channel", channel.name, channel.verdict
    yield "installation", "", view.verdict


def gate(view: GateView, now: int) -> Found:
    """Return the metrics of MongoDB's gate at `now` (ms)."""
    state = view.state or GateState()
    limit = limit_in_force(state, view.override)
    word = "open" if limit is None else "closed" if limit == 0 else "limited"
    found: Found = {}
    _put(found, "gate_state", [((name,), float(name == word)) for name in ("open", "limited", "closed")])
    _put(found, "gate_limit", [((), limit)])
    _put(found, "gate_used", [((), sum(member.used for member in view.members))])
    _put(found, "gate_since_seconds", [((), max(0.0, (now - state.since) / 1e3) if state.since else None)])
    _put(found, "gate_held", [((), float(view.override is not None))])
    _put(found, "gate_probe_seconds", [(("50",), view.gauge.p50), (("95",), view.gauge.p95)])
    return found


def counts(totals: TallyTotals, now: int) -> Found:
    """Return the exact counts of all campaigns by workspace, and how old they are at `now` (ms)."""
    found: Found = {}
    for name, one in totals.workspaces.items():
        _put(found, "deliveries", [((name, *key), n) for key, n in one.deliveries.items()])
        _put(found, "enrolments", [((name, "active"), one.active), ((name, "exited"), one.entered - one.active)])
        _put(found, "holdout", [((name,), one.holdout)])
        treated = one.converted - one.converted_holdout
        _put(found, "conversions", [((name, "treated"), treated), ((name, "holdout"), one.converted_holdout)])
    _put(found, "unfit_campaigns", [((), totals.unfit)])
    age = 0.0 if totals.oldest is None else max(0.0, (now - totals.oldest) / 1e3)
    _put(found, "tally_age_seconds", [((), age)])
    return found


def sums(folded: FoldedSlices) -> Found:
    """Return the counters and histograms of ended slices by lane."""
    found: Found = defaultdict(dict)
    for lane, total in folded.lanes.items():
        _put(found, "slices_ended", [((lane, state), count) for state, count in total.slices.items()])
        _put(found, "users_evaluated", [((lane,), total.users)])
        found["tidegate_lane_wait_seconds"][lane,] = (TURN_BOUNDS, total.waits)
        found["tidegate_lane_work_seconds"][lane,] = (TURN_BOUNDS, total.works)
    return dict(found)


def costs(dearest: Sequence[NamedCost], whole: CampaignCost) -> Found:
    """Return what the dearest campaigns cost, and all others together."""
    rows = [((one.workspace, one.campaign), one.cost) for one in dearest]
    other = CampaignCost(
        max(0.0, whole.worked - sum(cost.worked for _, cost in rows)),
        max(0, whole.users - sum(cost.users for _, cost in rows)),
        max(0, whole.sent - sum(cost.sent for _, cost in rows)),
    )
    found: Found = {}
    for labels, cost in (*rows, (("", "other"), other)):
        _put(found, "campaign_work_seconds", [(labels, cost.worked)])
        _put(found, "campaign_users_evaluated", [(labels, cost.users)])
        _put(found, "campaign_messages_sent", [(labels, cost.sent)])
    return found


def query_sums(read: Mapping[str, QueryTotal]) -> Found:
    """Return the histograms and counters of named queries, and those of the user cache made from them."""
    found: Found = defaultdict(dict)
    for name, total in read.items():
        found["tidegate_query_seconds"][name,] = (QUERY_BOUNDS, total.durations)
        _put(found, "query_failed", [((name,), total.failed)])
        _put(found, "query_documents", [((name,), total.documents)])
    got = read.get("cache.read", QueryTotal()).documents
    loaded = read.get("cache.load", QueryTotal()).documents
    _put(found, "cache_users_read", [((), got)])
    _put(found, "cache_users_loaded", [((), loaded)])
    _put(found, "cache_hit_ratio", [((), max(0.0, 1 - loaded / got) if got else None)])
    return dict(found)


REASONS: Final = (
    "gate",
    "rate",
    "paused",
    "no_fleet",
    "feed",
    "stuck",
    "no_clock",
    "queue",
    "provider",
    "store",
    "late",
)
"""The reasons of lateness, each shown even when nothing is late for it: a metric that appears late has no past."""


def lateness(late: Sequence[Late]) -> Found:
    """Return how many campaigns are late for each reason, and how far the latest of them is behind."""
    found: Found = {}
    for reason in sorted({*REASONS, *(one.reason for one in late)}):
        behind = [one.by for one in late if one.reason == reason]
        _put(found, "late_campaigns", [((reason,), len(behind))])
        _put(found, "late_seconds", [((reason,), max(behind, default=0.0))])
    return found
