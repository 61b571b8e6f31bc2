"""Replay recorded slices under a set of policies: a discrete-event simulation of dispatch, lanes and fleets. Pure.

The simulation makes the engine's own decisions: `route` chooses the lane, `next_slices` whose turn it is, `is_slow`
whether a campaign leaves its lane. It replaces what surrounds them. A tick of the clock follows each event after the
lane's `reaction`. A lane's queue is first in, first out. A fleet is a pool of threads that takes the message enqueued
first among its lanes. A turn takes as long as recorded.

A delivering slice arrives when the deciding slice that it came from reaches the same point (`origins`), so mails come
earlier where deciding does. The clock adds delivering slices only for a campaign that has none: those that it added
arrive once the campaign has no other, and what would have come meanwhile is one slice. All other slices arrive when
they did.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import NamedTuple, TypeAlias

from engine.clock import millis
from engine.decisions.fairness import FairShares
from engine.decisions.routing import route
from engine.decisions.slow_and_failing import is_slow, seconds_per_user
from engine.domain.slice_record import SliceRecord
from engine.domain.work import Waiting
from engine.pipeline.scheduler.next_slices import next_slices
from engine.policy.models import LaneKind, Profile, Urgency
from engine.policy.policyset import CampaignFacts, PolicySet

Group: TypeAlias = tuple[str, bool]
"""A campaign (uid), and whether its slices deliver: what `in_flight` limits."""


class SimulatedTurn(NamedTuple):
    """A turn as simulated, in ms of system time: free to be claimed, claimed, ended."""

    slice_id: str
    lane: str
    free: float
    claimed: float
    ended: float

    @property
    def wait(self) -> float:
        """Milliseconds from free to claimed."""
        return self.claimed - self.free

    @property
    def held(self) -> float:
        """Milliseconds for which a thread held the slice."""
        return self.ended - self.claimed


class Origin(NamedTuple):
    """Where a delivering slice came from: the deciding slice, the number of its turn, and the ms into that turn."""

    slice_id: str
    turn: int
    after: float


@dataclass(frozen=True, slots=True)
class Reaction:
    """The time (ms) from an event (a slice arrives, a turn ends) until an idle thread claims what the clock enqueues.

    It varies, so the simulation draws from what was measured: in the lane (`lanes`), or else in all (`general`). None
    of these may be empty.
    """

    general: Sequence[float]
    lanes: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def of(self, lane: str) -> Sequence[float]:
        """Return the measured reactions in a lane."""
        return self.lanes.get(lane, self.general)


@dataclass(slots=True)
class _Piece:
    """A slice in the simulation: `turns` are (ms of pause before it is free, ms held); `number` is the current turn.

    `round` is the same for delivering slices that the clock adds at once.
    """

    record: SliceRecord
    round: str
    turns: Sequence[tuple[float, float]]
    waiting: Waiting
    slowed: bool
    number: int = 0
    free: float = 0.0
    claimed: float = 0.0
    worked: float = 0.0
    lane: str = ""
    fleet: str = ""
    children: list[tuple[int, float, _Piece]] = field(default_factory=list)

    @property
    def group(self) -> Group:
        return self.record.campaign, self.record.delivers


@dataclass(slots=True)
class _Verdict:
    """What a simulated campaign is measured to be: the seconds per user of its latest batches, and since when (ms)."""

    seconds: deque[float]
    slowed: bool = False
    since: float = 0.0


def simulate(
    records: Iterable[SliceRecord],
    facts: Mapping[str, CampaignFacts],
    policies: PolicySet,
    *,
    reaction: Reaction,
    slowed: frozenset[str] = frozenset(),
    rejudged: frozenset[str] = frozenset(),
    origins: Mapping[str, Origin] | None = None,
) -> list[SimulatedTurn]:
    """Return the turns of the recorded slices under `policies`, in the order of their claims.

    `facts` are those of each campaign by uid. `slowed` are the slices (ids) that were in their campaign's slow lane
    because of its measured times; for the campaigns `rejudged` (uids) the simulation judges anew by `slow_when`.
    `origins` names the deciding turn from which each delivering slice came. A record without turns is left out.

    Raises `KeyError` for a record whose campaign has no facts.
    """
    simulation = _Simulation(facts, policies, reaction, rejudged)
    pieces = [_piece(record, record.id in slowed) for record in records if record.turns]
    return simulation.run(pieces, origins or {})


class _Simulation:
    def __init__(
        self, facts: Mapping[str, CampaignFacts], policies: PolicySet, reaction: Reaction, rejudged: frozenset[str]
    ) -> None:
        self._facts, self._policies = facts, policies
        self._reaction = {lane: reaction.of(lane) for lane in policies.lanes}
        self._draw = Random(0).choice
        self._profiles: dict[str, Profile] = {}
        self._lanes: dict[tuple[str, bool, bool, bool], str] = {}
        self._verdicts = {uid: _Verdict(deque()) for uid in rejudged}
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = count()
        self._shares: dict[tuple[str, Urgency], FairShares] = defaultdict(FairShares)
        self._waiting: dict[Group, list[tuple[str, _Piece]]] = defaultdict(list)
        self._groups: dict[str, dict[Group, None]] = defaultdict(dict)
        self._ticking: set[str] = set()
        self._held: dict[str, _Piece] = {}
        self._busy: Counter[str] = Counter()
        self._flying: Counter[Group] = Counter()
        self._open: dict[str, dict[str, _Piece]] = defaultdict(dict)
        self._put_off: dict[str, dict[str, _Piece]] = defaultdict(dict)
        self._queues: dict[str, deque[tuple[int, _Piece]]] = {name: deque() for name in policies.lanes}
        self._idle = {name: fleet.workers for name, fleet in policies.fleets.items()}
        self._fleets = {lane: policies.fleet_names(lane) for lane in policies.lanes}
        self._turns: list[SimulatedTurn] = []

    def run(self, pieces: Sequence[_Piece], origins: Mapping[str, Origin]) -> list[SimulatedTurn]:
        """Simulate all events until none is left."""
        by_id = {piece.record.id: piece for piece in pieces}
        for piece in pieces:
            origin = origins.get(piece.record.id)
            parent = by_id.get(origin.slice_id) if origin is not None else None
            if origin is not None and parent is not None and origin.turn < len(parent.turns):
                parent.children.append((origin.turn, origin.after, piece))
            else:
                self._later(piece.record.added_at + piece.turns[0][0], partial(self._arrive, piece))
        while self._events:
            at, _, happen = heappop(self._events)
            happen(at)
        return self._turns

    def _later(self, at: float, happen: Callable[[float], None]) -> None:
        heappush(self._events, (at, next(self._order), happen))

    def _arrive(self, piece: _Piece, at: float) -> None:
        """Let a slice wait for the next tick: it may be claimed from now on."""
        if piece.record.delivers and not self._opens(piece):
            return
        piece.free = at
        heappush(self._waiting[piece.group], (piece.record.id, piece))
        lane = self._lane(piece)
        self._groups[lane][piece.group] = None
        self._change(lane, at)

    def _opens(self, piece: _Piece) -> bool:
        """Note that a delivering slice is open; put it off if the clock would not add it yet."""
        there = self._open[piece.record.campaign]
        if piece.record.whole and piece.number == 0 and any(other.round != piece.round for other in there.values()):
            self._put_off_until_closed(piece)
            return False
        there[piece.record.id] = piece
        return True

    def _put_off_until_closed(self, piece: _Piece) -> None:
        """Put a slice off; if one of the same range is put off already, that one does the work of both.

        It takes as long as the longer of the two: the engine marks and sends what is chosen meanwhile in one go, and
        most of these slices find their deliveries taken by the slice of the decision.
        """
        put_off = self._put_off[piece.record.campaign]
        piece.round = next((other.round for other in put_off.values()), piece.round)
        first = put_off.setdefault(piece.record.id.rpartition("/")[2], piece)
        if first is not piece:
            (pause, held), *rest = first.turns
            first.turns = [(pause, max(held, sum(more for _, more in piece.turns))), *rest]

    def _closes(self, piece: _Piece, at: float) -> None:
        """Note that a delivering slice has ended; after the last one of its campaign come those that were put off."""
        campaign = piece.record.campaign
        there = self._open[campaign]
        there.pop(piece.record.id, None)
        if not there:
            for each in self._put_off.pop(campaign, {}).values():
                self._arrive(each, at)

    def _change(self, lane: str, at: float) -> None:
        """Note that a lane has changed; one tick answers all changes until it runs."""
        if lane not in self._ticking:
            self._ticking.add(lane)
            self._later(at + self._draw(self._reaction[lane]), partial(self._tick, lane))

    def _tick(self, lane: str, at: float) -> None:
        """Enqueue slices in a lane that has changed, as the dispatcher does."""
        self._ticking.discard(lane)
        room = self._policies.room(lane) - self._busy[lane]
        if room > 0:
            self._enqueue(lane, room, at)

    def _enqueue(self, lane: str, room: int, at: float) -> None:
        pieces = {piece.record.id: piece for piece in self._claimable(lane)}
        picked: set[str] = set()
        if pieces:
            self._measure(lane, at)
            waiting = [piece.waiting for piece in pieces.values()]
            ids = next_slices(self._shares, lane, waiting, room, policies=self._policies, profile=self._profile)
            picked.update(ids)
            for slice_id in ids:
                piece = pieces[slice_id]
                self._flying[piece.group] += 1
                self._queue(lane, piece)
        for slice_id, piece in pieces.items():
            if slice_id not in picked:
                heappush(self._waiting[piece.group], (slice_id, piece))
        self._serve_lane(lane, at)

    def _claimable(self, lane: str) -> list[_Piece]:
        """Take out the waiting slices of a lane that `in_flight` allows, of each campaign the first by id."""
        claimable: list[_Piece] = []
        for group in list(self._groups[lane]):
            waiting, flying, elsewhere = self._waiting[group], self._flying[group], []
            while waiting and flying < self._most(group, own := self._lane(waiting[0][1])):
                flying += 1
                slice_id, piece = heappop(waiting)
                if own == lane:
                    claimable.append(piece)
                else:
                    elsewhere.append((slice_id, piece))
            for entry in elsewhere:
                heappush(waiting, entry)
            if not waiting:
                del self._groups[lane][group]
        for piece in claimable:
            self._groups[lane][piece.group] = None
        return claimable

    def _most(self, group: Group, lane: str) -> int:
        campaign, delivers = group
        most = self._profile(campaign).in_flight
        return most * self._policies.processes(lane) if delivers else most

    def _measure(self, lane: str, at: float) -> None:
        """Charge the turns that are still going on by the time they have taken so far."""
        for urgency in Urgency:
            shares = self._shares.get((lane, urgency))
            for slice_id in () if shares is None else shares.unmeasured:
                piece = self._held.get(slice_id)
                if shares is not None and piece is not None:
                    shares.measured(slice_id, (piece.worked + at - piece.claimed) / 1000, ended=False)

    def _queue(self, lane: str, piece: _Piece) -> None:
        piece.lane = lane
        self._busy[lane] += 1
        self._queues[lane].append((next(self._order), piece))

    def _serve_lane(self, lane: str, at: float) -> None:
        for fleet in self._fleets[lane]:
            self._serve(fleet, at)

    def _serve(self, fleet: str, at: float) -> None:
        """Let the idle threads of a fleet claim what was enqueued first in its lanes."""
        while self._idle[fleet] > 0:
            queues = [self._queues[lane] for lane in self._policies.fleets[fleet].lanes if self._queues[lane]]
            if not queues:
                return
            _, piece = min(queues, key=lambda queue: queue[0][0]).popleft()
            lane = self._lane(piece)
            if lane != piece.lane:  # the campaign was slowed meanwhile: the worker moves the message
                self._move(piece, lane, at)
            else:
                self._claim(at, piece, fleet)

    def _move(self, piece: _Piece, lane: str, at: float) -> None:
        self._busy[piece.lane] -= 1
        for urgency in Urgency:
            if (shares := self._shares.get((piece.lane, urgency))) is not None:
                shares.forget(piece.record.id)
        self._queue(lane, piece)
        self._serve_lane(lane, at)

    def _claim(self, at: float, piece: _Piece, fleet: str) -> None:
        self._idle[fleet] -= 1
        piece.claimed, piece.fleet = at, fleet
        ends = at + piece.turns[piece.number][1]
        self._held[piece.record.id] = piece
        self._turns.append(SimulatedTurn(piece.record.id, piece.lane, piece.free, at, ends))
        self._later(ends, partial(self._end, piece))
        for turn, after, child in piece.children:
            if turn == piece.number:
                self._later(at + after, partial(self._arrive, child))

    def _end(self, piece: _Piece, at: float) -> None:
        """End a turn: its thread takes the next message, and the slice ends or waits for its next turn."""
        del self._held[piece.record.id]
        self._idle[piece.fleet] += 1
        self._busy[piece.lane] -= 1
        self._flying[piece.group] -= 1
        piece.worked += at - piece.claimed
        for urgency in Urgency:
            if (shares := self._shares.get((piece.lane, urgency))) is not None:
                shares.measured(piece.record.id, piece.worked / 1000, ended=True)
        piece.number += 1
        if piece.number < len(piece.turns):
            piece.waiting = replace(piece.waiting, worked=int(piece.worked))
            self._later(at + piece.turns[piece.number][0], partial(self._arrive, piece))
        elif piece.record.delivers:
            self._closes(piece, at)
        else:
            self._judge(at, piece)
        self._serve(piece.fleet, at)
        self._change(piece.lane, at)
        for lane, groups in self._groups.items():
            if piece.group in groups:  # its `in_flight` has room again
                self._change(lane, at)

    def _judge(self, at: float, piece: _Piece) -> None:
        """Judge by `slow_when` whether the campaign of an ended deciding slice belongs in its slow lane."""
        verdict = self._verdicts.get(piece.record.campaign)
        profile = self._profile(piece.record.campaign)
        rule = profile.slow_when
        if verdict is None or rule is None or not piece.record.users:
            return
        batches = min(rule.batches, -(-piece.record.users // max(profile.batch.candidates)))
        verdict.seconds.extend([seconds_per_user(timedelta(milliseconds=piece.worked), piece.record.users)] * batches)
        while len(verdict.seconds) > rule.batches:
            verdict.seconds.popleft()
        slow = is_slow(list(verdict.seconds), rule.per_user_p95, rule.batches, slowed=verdict.slowed)
        if slow == verdict.slowed or (not slow and at - verdict.since < millis(rule.at_least)):
            return
        verdict.slowed, verdict.since = slow, at
        group = (piece.record.campaign, False)
        for _, waiting in self._waiting[group]:
            self._groups[self._lane(waiting)][group] = None
            self._change(self._lane(waiting), at)

    def _profile(self, campaign: str) -> Profile:
        profile = self._profiles.get(campaign)
        if profile is None:
            profile = self._profiles[campaign] = self._policies.profile_for(self._facts[campaign])
        return profile

    def _lane(self, piece: _Piece) -> str:
        record = piece.record
        verdict = self._verdicts.get(record.campaign)
        slowed = piece.slowed if verdict is None else verdict.slowed
        key = (record.campaign, record.delivers, record.suspect, slowed)
        lane = self._lanes.get(key)
        if lane is None:
            facts = replace(self._facts[record.campaign], slowed=slowed)
            kind = LaneKind.DELIVER if record.delivers else LaneKind.DECIDE
            lane = self._lanes[key] = route(self._policies, facts, suspect=record.suspect, kind=kind)
        return lane


def _piece(record: SliceRecord, slowed: bool) -> _Piece:
    """Return a slice to simulate; turns beyond those recorded are as long as the recorded ones on average."""
    ends = [0, *(turn.ended for turn in record.turns)]
    turns = [(float(max(0, turn.free - end)), float(turn.held)) for turn, end in zip(record.turns, ends, strict=False)]
    held = sum(held for _, held in turns)
    further = round((record.worked - held) / (held / len(turns))) if held else 0
    if further > 0:
        turns += [(0.0, (record.worked - held) / further)] * further
    waiting = Waiting(record.id, record.workspace, record.campaign, record.kind, record.suspect, False, False, True)
    return _Piece(record, record.id.rpartition("/")[0] if record.whole else record.id, turns, waiting, slowed)
