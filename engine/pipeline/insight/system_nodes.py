"""The parts of the picture, made from what was read of them. No store is asked here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from engine.clock import Instant
from engine.decisions.routing import SUSPECT, route
from engine.decisions.slow_and_failing import percentile
from engine.decisions.system_health import (
    channel_health,
    fleet_health,
    lane_health,
    producer_health,
    store_health,
    whole_health,
)
from engine.domain.campaign import CampaignRecord
from engine.domain.gate import MONGODB, GateState, GateView, limit_in_force
from engine.domain.slice_record import OpenSlices, SliceRecord
from engine.domain.system_view import (
    ChannelNode,
    Edge,
    FleetNode,
    LaneNode,
    Level,
    ProcessNode,
    ProducerNode,
    QueueView,
    StoreNode,
    SystemView,
    Times,
    Verdict,
)
from engine.domain.work import SliceKind
from engine.pipeline.campaigns.compiled_cache import routing_facts
from engine.pipeline.insight.statistics import QueryStatistics
from engine.policy.models import LaneKind
from engine.policy.policyset import PolicySet
from engine.query_metrics import store_of

EMAIL: Final = "email"
UNKNOWN: Final = Verdict(Level.UNKNOWN, "its processes are not known")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a process knows of the installation without asking: addresses (no secrets), transport, and the version."""

    addresses: Mapping[str, str]
    transport: str


@dataclass(slots=True)
class Found:
    """What was read so far; a part that could not be read stays as it is here.

    `open` has the open slices by lane, each with whether its campaign rests (paused or not begun); `names` the
    campaigns as `workspace/name` by uid; `leads` whether the clock and the feed are at work.
    """

    pings: dict[str, float | None] = field(default_factory=dict)
    processes: list[ProcessNode] = field(default_factory=list)
    open: dict[str, list[tuple[OpenSlices, bool]]] | None = None
    latest: Sequence[SliceRecord] = ()
    names: dict[str, str] = field(default_factory=dict)
    campaigns: Mapping[str, int] = field(default_factory=dict)
    queues: Mapping[str, QueueView] | None = None
    leads: dict[str, bool] = field(default_factory=dict)
    lag: float | None = None
    gate: GateView | None = None
    measured: Sequence[QueryStatistics] = ()

    @property
    def knows_processes(self) -> bool:
        """Whether MongoDB, which knows the processes and the work, answers."""
        return self.pings.get("mongodb") is not None

    def rate(self, name: str) -> float:
        """Return how often a second all processes together count `name`."""
        return sum(process.report.rates.get(name, 0.0) for process in self.processes)


def system_view(found: Found, policies: PolicySet, surroundings: Surroundings, now: Instant) -> SystemView:
    """Return the picture of the installation at `now`."""
    lanes = tuple(_lane(name, found, policies) for name in policies.lanes)
    fleets = tuple(_fleet(name, found, policies) for name in policies.fleets)
    producers = _producers(found, policies)
    stores = tuple(_store(name, found, surroundings) for name in found.pings)
    channels = (_channel(found, policies, surroundings, now),)
    missing = tuple(name for name, ping in found.pings.items() if ping is None)
    parts: list[tuple[str, Verdict]] = []
    parts += [(f"store {node.name}", node.verdict) for node in stores]
    parts += [(node.name, node.verdict) for node in producers]
    parts += [(f"lane {node.name}", node.verdict) for node in lanes]
    parts += [(f"fleet {node.name}", node.verdict) for node in fleets]
    parts += [(f"channel {node.name}", node.verdict) for node in channels]
    return SystemView(
        at=now,
        lanes=lanes,
        fleets=fleets,
        producers=producers,
        stores=stores,
        channels=channels,
        edges=_edges(lanes, fleets, producers, stores, channels),
        gate=found.gate,
        verdict=whole_health(parts),
        policy=policies.version,
        campaigns=found.campaigns,
        missing=missing,
    )


def _store(name: str, found: Found, surroundings: Surroundings) -> StoreNode:
    failed = found.rate(f"failed.{name}")
    ping = found.pings[name]
    limit = _limit_of(found.gate) if name == MONGODB else None
    return StoreNode(
        name=name,
        address=surroundings.addresses.get(name, ""),
        ping=ping,
        rate=found.rate(f"calls.{name}"),
        failed=failed,
        calls=_calls(name, found.measured) if found.knows_processes else Times(),
        verdict=store_health(name=name, ping=ping, failed=failed, gate_limit=limit),
    )


def _channel(found: Found, policies: PolicySet, surroundings: Surroundings, now: Instant) -> ChannelNode:
    rates: dict[str, float] = {}
    for process in found.processes:
        for name, rate in process.report.rates.items():
            if name.startswith(f"deliveries.{EMAIL}."):
                outcome = name.rpartition(".")[2]
                rates[outcome] = rates.get(outcome, 0.0) + rate
    rule = policies.rates.get(EMAIL)
    limit = None if rule is None else rule.per_second_at(now)
    return ChannelNode(EMAIL, surroundings.transport, rates, limit, channel_health(rates))


def _limit_of(gate: GateView | None) -> float | None:
    return None if gate is None else limit_in_force(gate.state or GateState(), gate.override)


def lane_of(policies: PolicySet, record: CampaignRecord, one: OpenSlices) -> str:
    """Return the lane that the policies give to these open slices of a campaign."""
    kind = LaneKind.DELIVER if one.kind is SliceKind.DELIVER else LaneKind.DECIDE
    return route(policies, routing_facts(record, slow=one.slow), suspect=one.suspect, kind=kind)


def _lane(name: str, found: Found, policies: PolicySet) -> LaneNode:
    lane = policies.lanes[name]
    queue = None if found.queues is None else found.queues.get(name)
    counted = None if found.open is None else found.open.get(name, [])
    slices = held = None
    oldest: float | None = None
    if counted is not None:
        slices = sum(one.free for one, resting in counted if not resting)
        held = sum(one.held for one, _ in counted)
        oldest = max((one.oldest for one, resting in counted if one.oldest is not None and not resting), default=None)
    waiting = slices
    if lane.kind is LaneKind.INTERNAL and name != SUSPECT:
        waiting = None if queue is None else queue.ready
        oldest = None if queue is None else queue.oldest
    ended = [one for one in found.latest if one.lane == name]
    served = any(name in process.lanes for process in found.processes)
    return LaneNode(
        name=name,
        kind=lane.kind.value,
        ready=None if queue is None else queue.ready,
        delayed=None if queue is None else queue.delayed,
        taken=None if queue is None else queue.taken,
        dead=None if queue is None else queue.dead,
        slices=slices,
        held=held,
        oldest=oldest,
        rate=found.rate(f"slices.{name}"),
        waits=_times([(turn.wait / 1e3, one, turn.claimed) for one in ended for turn in one.turns], found.names),
        works=_times([(turn.held / 1e3, one, turn.ended) for one in ended for turn in one.turns], found.names),
        time_limit=lane.time_limit.total_seconds(),
        fleets=policies.fleet_names(name),
        verdict=lane_health(
            alarm=lane.alarm,
            waiting=waiting if found.knows_processes else None,
            held=held or (0 if queue is None else queue.taken),
            oldest=oldest,
            dead=0 if queue is None else queue.dead,
            fleets=policies.fleet_names(name),
            served=served,
            lane=name,
        ),
    )


def _times(cases: Sequence[tuple[float, SliceRecord, int]], names: Mapping[str, str]) -> Times:
    """Return the quantiles of `cases`: seconds, the slice, and when (ms after it was added)."""
    if not cases:
        return Times()
    seconds = [case[0] for case in cases]
    worst, record, after = max(cases, key=lambda case: case[0])
    return Times(
        len(cases),
        percentile(seconds, 0.5),
        percentile(seconds, 0.95),
        percentile(seconds, 0.99),
        worst,
        names.get(record.campaign, ""),
        record.added_at + after,
    )


def _calls(store: str, measured: Sequence[QueryStatistics]) -> Times:
    """Return the times of a store's named queries: the quantiles of the busiest query, the worst of all.

    Quantiles of different queries cannot be merged; the one with most calls says most about what others feel.
    """
    own = [query for query in measured if store_of(query.name) == store]
    if not own:
        return Times()
    busiest = max(own, key=lambda query: query.calls)
    worst = max((query.worst for query in own), key=lambda one: one.seconds)
    return Times(
        sum(query.calls for query in own),
        busiest.median,
        busiest.p95,
        busiest.p99,
        worst.seconds,
        worst.campaign or "",
        worst.at,
    )


def _fleet(name: str, found: Found, policies: PolicySet) -> FleetNode:
    fleet = policies.fleets[name]
    own = tuple(process for process in found.processes if process.kind == name)
    whole = tuple(process for process in found.processes if process.kind == "run") if not own else ()
    serving = own or tuple(process for process in whole if set(fleet.lanes) & set(process.lanes))
    busy = sum(process.report.busy for process in own)
    known = found.knows_processes
    verdict = fleet_health(
        name=name,
        wanted=fleet.processes if own else 1,
        alive=len(serving),
        threads=fleet.workers,
        busy=busy,
        notes=[note for process in own for note in process.notes],
    )
    return FleetNode(
        name=name,
        lanes=fleet.lanes,
        wanted=fleet.processes,
        threads=fleet.threads,
        busy=busy,
        processes=serving,
        verdict=verdict if known else UNKNOWN,
    )


def _producers(found: Found, policies: PolicySet) -> tuple[ProducerNode, ...]:
    """Return the clock, the feed, and every other kind of process that serves no fleet of the policies."""
    known = found.knows_processes
    by_kind: dict[str, list[ProcessNode]] = {"clock": [], "feed": []}
    for process in found.processes:
        if process.kind not in policies.fleets:
            by_kind.setdefault(process.kind, []).append(process)
    nodes = []
    for kind, own in by_kind.items():
        at_work = own or (by_kind.get("run", []) if kind in found.leads else [])
        rate = sum(process.report.rates.get("changes", 0.0) for process in at_work) if kind == "feed" else 0.0
        lag = found.lag if kind == "feed" else None
        leads = found.leads.get(kind, True)
        verdict = producer_health(name=kind, alive=len(at_work), lag=lag, leads=leads)
        nodes.append(ProducerNode(kind, tuple(own), rate, lag, verdict if known else UNKNOWN))
    return tuple(nodes)


def _edges(
    lanes: Sequence[LaneNode],
    fleets: Sequence[FleetNode],
    producers: Sequence[ProducerNode],
    stores: Sequence[StoreNode],
    channels: Sequence[ChannelNode],
) -> tuple[Edge, ...]:
    """Return the arrows: clock to lanes, lanes to fleets, fleets to stores and channels, feed to stores."""
    edges = [Edge("producer/clock", f"lane/{lane.name}", lane.rate, "slices") for lane in lanes]
    for lane in lanes:
        for fleet in fleets:
            if lane.name in fleet.lanes:
                rate = sum(process.report.rates.get(f"slices.{lane.name}", 0.0) for process in fleet.processes)
                edges.append(Edge(f"lane/{lane.name}", f"fleet/{fleet.name}", rate, "slices"))
    for fleet in fleets:
        edges += _calls_of(f"fleet/{fleet.name}", fleet.processes, stores)
        delivers = [lane for lane in lanes if lane.name in fleet.lanes and lane.kind == LaneKind.DELIVER.value]
        if delivers:
            for channel in channels:
                sent = sum(
                    rate
                    for process in fleet.processes
                    for name, rate in process.report.rates.items()
                    if name.startswith(f"deliveries.{channel.name}.")
                )
                edges.append(Edge(f"fleet/{fleet.name}", f"channel/{channel.name}", sent, "deliveries"))
    for producer in producers:
        if producer.name in ("clock", "feed"):
            edges += _calls_of(f"producer/{producer.name}", producer.processes, stores)
    return tuple(edges)


def _calls_of(source: str, processes: Sequence[ProcessNode], stores: Sequence[StoreNode]) -> list[Edge]:
    made = []
    for store in stores:
        rate = sum(process.report.rates.get(f"calls.{store.name}", 0.0) for process in processes)
        if rate or store.name == MONGODB:
            made.append(Edge(source, f"store/{store.name}", rate, "calls"))
    return made
