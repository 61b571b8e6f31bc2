"""Forecast the waits in each lane under other policies: replay the slices of the last days under two sets."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from heapq import heappop, heappush
from typing import Final, NamedTuple

from engine.clock import Instant
from engine.decisions.routing import route
from engine.decisions.slow_and_failing import percentile
from engine.domain.slice_record import SliceRecord
from engine.pipeline.campaigns.compiled_cache import routing_facts
from engine.pipeline.insight.lane_simulation import Origin, Reaction, SimulatedTurn, simulate
from engine.pipeline.ports.campaigns import CampaignStore
from engine.pipeline.ports.work import SliceRecords
from engine.policy.models import LaneKind
from engine.policy.policyset import CampaignFacts, PolicySet

REACTION: Final = 50.0
"""The clock's reaction (ms) where the record shows none: a wake-up, a tick, a message and a claim."""

LEAST_REACTIONS: Final = 5
"""Uncontended turns from which their waits count as the clock's reactions."""

CREATED_WITHIN: Final = 1_000
"""Milliseconds around a turn within which a delivering slice may have come from it: clocks of machines differ."""

LOOK_BACK: Final = 200
"""Turns of a campaign, latest first, among which the creator of a delivering slice is looked for."""


NOT_MODELLED: Final = (
    "processors: a turn takes as long as recorded, however many threads and fleets share a core",
    "slice_users, batch, pass and rates: the recorded slices come as they did, and deliveries follow their decisions",
    "prefetch and the processes of a fleet: its threads take what was enqueued first",
    "the engine's own lanes (control, looks, index), whose messages take time of the same threads",
)
"""What a forecast leaves out; `docs/policies.md` explains it."""


@dataclass(frozen=True, slots=True)
class LaneWaits:
    """The waits of a lane's slices for a thread, in seconds, one for each turn; `slices` counts slices.

    `turn` is the mean time (s) for which a thread held one. `busy` is the share of the time of the lane's threads that
    its slices took; None if no thread serves it.
    """

    slices: int
    p50: float
    p95: float
    p99: float
    turn: float
    busy: float | None


@dataclass(frozen=True, slots=True)
class LaneForecast:
    """A lane as recorded, simulated under the policies in force, and simulated under the edited ones (if any).

    `reaction` is the time (s, the median) that an idle thread of the lane waits for the clock.
    """

    lane: str
    reaction: float
    recorded: LaneWaits | None
    today: LaneWaits | None
    edited: LaneWaits | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """The forecast, and what it rests on.

    The record covers `first` to `last` (system time; None if nothing is recorded) and `slices`. `left_out` counts the
    slices that workers held but whose turns or campaign are not known.
    """

    lanes: Sequence[LaneForecast]
    first: Instant | None
    last: Instant | None
    slices: int
    left_out: int


def forecast(
    slices: SliceRecords, campaigns: CampaignStore, today: PolicySet, edited: PolicySet | None, within: timedelta
) -> Forecast:
    """Replay the slices that ended `within` the last days under `today`'s policies and under `edited` ones."""
    found = slices.recorded(within)
    facts = {record.uid: routing_facts(record) for record in campaigns.everything()}
    records = [record for record in found if record.turns and record.campaign in facts]
    left_out = sum(1 for record in found if record.worked and not (record.turns and record.campaign in facts))
    if not records:
        return Forecast((), None, None, 0, left_out)
    recorded = as_recorded(records, facts, today)
    reaction = reaction_of(recorded, {record.id: record for record in records}, today, facts)
    replay = _Replay(records, facts, today, reaction)
    sets = {"recorded": _lanes(recorded, today), "today": _lanes(replay.under(today), today)}
    sets["edited"] = {} if edited is None else _lanes(replay.under(edited), edited)
    names = {name for waits in sets.values() for name in waits}
    order = {name: number for number, name in enumerate([*today.lanes, *(edited.lanes if edited else ())])}
    return Forecast(
        [
            LaneForecast(
                name,
                percentile(reaction.of(name), 0.5) / 1000,
                *(sets[which].get(name) for which in ("recorded", "today", "edited")),
            )
            for name in sorted(names, key=lambda name: (order.get(name, len(order)), name))
        ],
        min(record.added_at for record in records),
        max(record.added_at + record.turns[-1].ended for record in records),
        len(records),
        left_out,
    )


class _Replay:
    """The recorded slices, ready to be simulated under any set of policies."""

    def __init__(
        self,
        records: Sequence[SliceRecord],
        facts: Mapping[str, CampaignFacts],
        today: PolicySet,
        reaction: Reaction,
    ) -> None:
        self._records, self._facts, self._today, self._reaction = records, facts, today, reaction
        self._slowed = slowed(records, facts, today)
        self._origins = origins(records)

    def under(self, policies: PolicySet) -> list[SimulatedTurn]:
        """Simulate them under these policies; a campaign with another `slow_when` is judged anew."""
        rejudged = {
            uid
            for uid, facts in self._facts.items()
            if policies.profile_for(facts).slow_when != self._today.profile_for(facts).slow_when
        }
        return simulate(
            self._records,
            self._facts,
            policies,
            reaction=self._reaction,
            slowed=self._slowed,
            rejudged=frozenset(rejudged),
            origins=self._origins,
        )


def _lane_of(policies: PolicySet, facts: CampaignFacts, record: SliceRecord, *, slowed: bool) -> str:
    kind = LaneKind.DELIVER if record.delivers else LaneKind.DECIDE
    now = CampaignFacts(facts.workspace, facts.campaign, facts.kind, facts.cost, facts.profile, slowed)
    return route(policies, now, suspect=record.suspect, kind=kind)


def as_recorded(
    records: Iterable[SliceRecord], facts: Mapping[str, CampaignFacts], today: PolicySet
) -> list[SimulatedTurn]:
    """Return the turns as they were, in the order of their claims.

    A slice counts in the lane where it was enqueued last; one that never was, in that of `today`'s policies.
    """
    turns: list[SimulatedTurn] = []
    for record in records:
        own = facts[record.campaign]
        lane = record.lane or _lane_of(today, own, record, slowed=own.slowed)
        for free, claimed, ended in record.instants():
            turns.append(SimulatedTurn(record.id, lane, min(free, claimed), claimed, max(claimed, ended)))
    return sorted(turns, key=lambda turn: (turn.claimed, turn.slice_id))


def slowed(records: Iterable[SliceRecord], facts: Mapping[str, CampaignFacts], today: PolicySet) -> frozenset[str]:
    """Return the deciding slices (ids) that ran in their campaign's slow lane because it was measured to be slow."""
    ids: set[str] = set()
    for record in records:
        if record.delivers or record.suspect:
            continue
        own = facts[record.campaign]
        slow = _lane_of(today, own, record, slowed=True)
        if own.slowed if record.lane is None else record.lane == slow != _lane_of(today, own, record, slowed=False):
            ids.add(record.id)
    return frozenset(ids)


def origins(records: Iterable[SliceRecord]) -> dict[str, Origin]:
    """Return the deciding turn from which each delivering slice came: one of its campaign that ran when it was added.

    A turn of the same range comes first, then any other: the clock adds slices for a whole campaign, for the deliveries
    that are chosen meanwhile. Without a turn within `CREATED_WITHIN` the slice has no origin: e.g. after a retry.
    """
    deciding: dict[str, list[_Deciding]] = defaultdict(list)
    delivering: list[SliceRecord] = []
    for record in records:
        if record.delivers:
            delivering.append(record)
        else:
            deciding[record.campaign] += [
                _Deciding(claimed, ended, number, record)
                for number, (_, claimed, ended) in enumerate(record.instants())
            ]
    for turns in deciding.values():
        turns.sort(key=lambda turn: turn.claimed)
    found: dict[str, Origin] = {}
    for record in delivering:
        turns = deciding[record.campaign]
        at = bisect_right(turns, record.added_at + CREATED_WITHIN, key=lambda turn: turn.claimed)
        near = [turn for turn in turns[max(0, at - LOOK_BACK) : at] if record.added_at <= turn.ended + CREATED_WITHIN]
        if near:
            best = min(near, key=lambda turn: (not turn.covers(record), turn.misses(record.added_at), -turn.claimed))
            found[record.id] = Origin(best.record.id, best.number, float(max(0, record.added_at - best.claimed)))
    return found


class _Deciding(NamedTuple):
    """A turn of a deciding slice, in ms of system time."""

    claimed: Instant
    ended: Instant
    number: int
    record: SliceRecord

    def covers(self, record: SliceRecord) -> bool:
        """Whether a delivering slice begins in the range of this slice."""
        return self.record.first <= record.first < self.record.until

    def misses(self, at: Instant) -> int:
        """Return by how many ms an instant lies outside the turn."""
        return max(self.claimed - at, at - self.ended, 0)


def reaction_of(
    turns: Iterable[SimulatedTurn],
    records: Mapping[str, SliceRecord],
    today: PolicySet,
    facts: Mapping[str, CampaignFacts],
) -> Reaction:
    """Return the clock's reactions: the waits of turns for which a thread was idle and `in_flight` left room.

    A lane with fewer than `LEAST_REACTIONS` of them has those of all lanes; if these are too few as well, `REACTION`.
    """
    lanes: dict[str, list[SimulatedTurn]] = defaultdict(list)
    for turn in turns:
        lanes[turn.lane].append(turn)
    waits = {
        lane: _uncontended(own, today.workers(lane), lambda turn: _flight(records[turn.slice_id], today, facts))
        for lane, own in lanes.items()
        if lane in today.lanes
    }
    known = {lane: own for lane, own in waits.items() if len(own) >= LEAST_REACTIONS}
    general = [wait for own in waits.values() for wait in own]
    return Reaction(general if len(general) >= LEAST_REACTIONS else [REACTION], known)


def _flight(record: SliceRecord, today: PolicySet, facts: Mapping[str, CampaignFacts]) -> tuple[tuple[str, bool], int]:
    """Return what `in_flight` counts a slice with, and the least that it allows."""
    return (record.campaign, record.delivers), today.profile_for(facts[record.campaign]).in_flight


def _uncontended(
    turns: Sequence[SimulatedTurn], threads: int, flight: Callable[[SimulatedTurn], tuple[tuple[str, bool], int]]
) -> list[float]:
    """Return the waits (ms) of a lane's turns that found fewer slices than threads, and than their `in_flight`."""
    waits: list[float] = []
    there: list[tuple[float, tuple[str, bool]]] = []
    flying: Counter[tuple[str, bool]] = Counter()
    for turn in sorted(turns, key=lambda turn: (turn.free, turn.claimed)):
        while there and there[0][0] <= turn.free:
            flying[heappop(there)[1]] -= 1
        group, most = flight(turn)
        if len(there) < threads and flying[group] < most:
            waits.append(turn.wait)
        heappush(there, (turn.ended, group))
        flying[group] += 1
    return waits


def _lanes(turns: Sequence[SimulatedTurn], policies: PolicySet) -> dict[str, LaneWaits]:
    lanes: dict[str, list[SimulatedTurn]] = defaultdict(list)
    for turn in turns:
        lanes[turn.lane].append(turn)
    if not turns:
        return {}
    span = max(turn.ended for turn in turns) - min(turn.free for turn in turns)
    return {lane: _waits(own, span, policies.workers(lane)) for lane, own in lanes.items()}


def _waits(turns: Sequence[SimulatedTurn], span: float, threads: int) -> LaneWaits:
    waits = sorted(turn.wait / 1000 for turn in turns)
    p50, p95, p99 = (percentile(waits, share) for share in (0.5, 0.95, 0.99))
    held = sum(turn.held for turn in turns)
    busy = held / (span * threads) if span * threads > 0 else None
    return LaneWaits(len({turn.slice_id for turn in turns}), p50, p95, p99, held / 1000 / len(turns), busy)
