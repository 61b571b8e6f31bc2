"""The whole installation at one moment: producers, lanes, fleets with their processes, stores, channels, and the gate.

`engine.pipeline.insight.system_reader` reads it; the map, the pages and the metrics show it. Durations are in seconds,
rates per second over `RATED_OVER`, instants in ms since 1970 (system time).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from engine.clock import Instant
from engine.domain.gate import GateView

RATED_OVER: Final = 10.0
"""Seconds over which processes measure the rates that they report."""


class Level(StrEnum):
    """How a part of the installation is, the worst last: the drawings show it by word and shape besides the colour."""

    IDLE = "idle"
    FINE = "fine"
    STRAINED = "strained"
    FAILING = "failing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A level and, in words, why; `remedy` is the command or the page that leads further, empty if none is needed."""

    level: Level
    why: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Times:
    """Quantiles of how long something took (s), of `count` cases, and the worst of them with its campaign.

    `worst_campaign` is `workspace/name`, empty if the case belongs to none. All are None and 0 without a case.
    """

    count: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    worst: float | None = None
    worst_campaign: str = ""
    worst_at: Instant | None = None


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """What a process says of itself with each heartbeat.

    `threads` may work at once and `busy` of them do; `memory` is its resident memory (bytes). `rates` holds how often a
    second each named count rose over the last `RATED_OVER` seconds: `slices.LANE`, `batches.LANE`, `users.LANE`,
    `deliveries.CHANNEL.OUTCOME`, `changes` (of the feed) and `calls.STORE`, `failed.STORE`. `totals` holds the same
    counts since the process began. `address` is where it serves pages (empty: it serves none).
    """

    threads: int = 0
    busy: int = 0
    memory: int = 0
    rates: Mapping[str, float] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    address: str = ""


@dataclass(frozen=True, slots=True)
class ProcessNode:
    """A living process: `kind` is its line of the Procfile (`fast`, `clock`), `id` is `host:pid:chance`."""

    id: str
    kind: str
    lanes: tuple[str, ...]
    since: str
    ago: float
    report: ProcessReport
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QueueView:
    """What Redis holds of a lane: messages that are ready, delayed, taken by a process, and dead letters.

    `oldest` is how long (s) the first of the ready ones has been in the queue; None if none is ready.
    """

    ready: int
    delayed: int
    taken: int
    dead: int
    oldest: float | None


@dataclass(frozen=True, slots=True)
class LaneNode:
    """A lane: its queue in Redis, its open slices in MongoDB, and how long its latest ended slices waited.

    `ready`, `delayed`, `taken` and `dead` count messages (None: Redis does not answer); `slices` counts open slices
    that nobody holds, `held` those that a worker holds (None: MongoDB does not answer), `oldest` is how long the oldest
    slice or message has waited although it could be taken. `waits` and `works` are of the slices that ended during
    the last minutes: free to claimed, and claimed to ended.
    """

    name: str
    kind: str
    ready: int | None
    delayed: int | None
    taken: int | None
    dead: int | None
    slices: int | None
    held: int | None
    oldest: float | None
    rate: float
    waits: Times
    works: Times
    time_limit: float
    fleets: tuple[str, ...]
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class FleetNode:
    """A fleet of the policies and its living processes; the policies ask for `wanted` of them with `threads` each."""

    name: str
    lanes: tuple[str, ...]
    wanted: int
    threads: int
    busy: int
    processes: tuple[ProcessNode, ...]
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class ProducerNode:
    """The clock, the feed, or another process that serves no lane; `lag` is how far it is behind (s; None: unknown)."""

    name: str
    processes: tuple[ProcessNode, ...]
    rate: float
    lag: float | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class StoreNode:
    """A store (`mongodb`, `broker`, `cache`, `elasticsearch`): `ping` is one round trip now, `calls` the named queries.

    `address` holds no secrets. `rate` and `failed` are calls and failed calls a second of all processes.
    """

    name: str
    address: str
    ping: float | None
    rate: float
    failed: float
    calls: Times
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class ChannelNode:
    """A channel (`email`): deliveries a second by outcome (`sent`, `retried`, `failed`, `unknown`), and its limit.

    `transport` is `maildir` or `smtp`; `limit` is the rate that the policies allow (per second; None: any).
    """

    name: str
    transport: str
    rates: Mapping[str, float]
    limit: float | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Edge:
    """An arrow of the map between two nodes, e.g. `lane/fast` and `fleet/fast`, and what passes a second."""

    source: str
    target: str
    rate: float
    unit: str


@dataclass(frozen=True, slots=True)
class SystemView:
    """The installation at `at`; `missing` names the stores that did not answer, so what they know is not shown.

    `policy` is the version of the policies in force, `campaigns` counts campaigns by state, `campaign_time` is the
    campaign time if somebody has set it.
    """

    at: Instant
    lanes: tuple[LaneNode, ...]
    fleets: tuple[FleetNode, ...]
    producers: tuple[ProducerNode, ...]
    stores: tuple[StoreNode, ...]
    channels: tuple[ChannelNode, ...]
    edges: tuple[Edge, ...]
    gate: GateView | None
    verdict: Verdict
    policy: str = ""
    campaigns: Mapping[str, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Late:
    """A campaign that should have sent or decided by now and has not, with the reason in words and what to do.

    `reason` is one word for metrics: `gate`, `rate`, `paused`, `no_fleet`, `feed`, `stuck`, `no_clock`, `queue`,
    `provider`, `store`, `late`. `by` is how far it is behind (s).
    """

    workspace: str
    campaign: str
    uid: str
    by: float
    reason: str
    why: str
    remedy: str
