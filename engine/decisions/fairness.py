"""Share the time of a lane: fair queueing over workspaces, and within each over its campaigns. Pure.

Each workspace and each campaign is a queue with a virtual time: the seconds that its slices have taken, divided by its
weight. `FairShares` picks the slice whose turn would end first in virtual time (Demers, Keshav and Shenker, "Analysis
and simulation of a fair queueing algorithm", 1989). The cost of a turn is the time for which a worker holds the slice.
It is not known before the turn ends, so `FairShares` first charges the typical cost of the campaign's turns, and
corrects the charge once the turn is measured. A workspace with slow slices therefore gets fewer turns, but the same
time. A queue that was empty starts at the virtual time of those that were not, so it gets no burst for the time in
which it had no work, and those that used the time owe it nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

SMALLEST_WEIGHT: Final = 0.01
"""Lower weights count as this one, because a queue with a lower weight would wait hundreds of turns."""

FIRST_COST: Final = 1.0
"""Assumed seconds of a campaign's turns until one is measured: the length of a deciding turn."""

LEAST_COST: Final = 0.001
"""Minimum seconds charged for a turn: a campaign whose turns cost nothing would always be picked first."""

SMOOTHING: Final = 0.3
"""Weight of the newest measurement in the typical cost of a campaign's turns."""


@dataclass(slots=True)
class _Turn:
    """A turn of a picked slice: `accounts` (key and weight of workspace and campaign) are charged `cost` (s) for it.

    `before` is the measured time (s) of the slice's earlier turns.
    """

    accounts: tuple[tuple[str, float], tuple[str, float]]
    campaign: str
    cost: float
    before: float


class FairShares:
    """The shares of one lane. Keep it between calls: it holds the virtual times and the turns not yet measured."""

    def __init__(self) -> None:
        self._virtual: dict[str, float] = {}
        self._active: set[str] = set()
        self._typical: dict[str, float] = {}
        self._turns: dict[str, _Turn] = {}

    @property
    def unmeasured(self) -> frozenset[str]:
        """The picked slices of whose turn no call of `measured` has reported the end."""
        return frozenset(self._turns)

    @property
    def at_work(self) -> frozenset[str]:
        """The campaigns of the unmeasured slices."""
        return frozenset(turn.campaign for turn in self._turns.values())

    def measured(self, slice_id: str, seconds: float, *, ended: bool) -> None:
        """Correct the charge of a slice's turn; `seconds` is the measured time of all its turns.

        `ended` says that the turn is over. Until then the charge only grows, when the turn exceeds it.
        """
        turn = self._turns.get(slice_id)
        if turn is None:
            return
        cost = max(LEAST_COST, seconds - turn.before)
        if ended or cost > turn.cost:
            for key, weight in turn.accounts:
                self._virtual[key] = self._virtual.get(key, 0.0) + (cost - turn.cost) / weight
            turn.cost = cost
        if ended:
            typical = self._typical.get(turn.campaign, cost)
            self._typical[turn.campaign] = (1 - SMOOTHING) * typical + SMOOTHING * cost
            del self._turns[slice_id]

    def forget(self, slice_id: str) -> None:
        """Drop a slice that will never be measured; what it was charged so far stays charged."""
        self._turns.pop(slice_id, None)

    def pick(
        self,
        queues: Mapping[str, Mapping[str, Sequence[str]]],
        room: int,
        *,
        weights: Mapping[str, float] | None = None,
        workspace_weights: Mapping[str, float] | None = None,
        seconds: Mapping[str, float] | None = None,
    ) -> list[str]:
        """Pick up to `room` slices from `queues` (workspace -> campaign -> slice ids in order).

        Workspaces share the lane by `workspace_weights`, and campaigns share what their workspace gets by `weights`;
        the default weight is 1. `seconds` is the measured time of slices that have had turns before.
        """
        left = {w: {c: list(reversed(ids)) for c, ids in campaigns.items() if ids} for w, campaigns in queues.items()}
        left = {workspace: campaigns for workspace, campaigns in left.items() if campaigns}
        self._enter(left)
        own, theirs = weights or {}, workspace_weights or {}
        heaps = {
            w: [(self._ends(f"{w}/{c}", c, own.get(c, 1.0)), c) for c in campaigns] for w, campaigns in left.items()
        }
        for heap in heaps.values():
            heapq.heapify(heap)
        order = [(self._ends(w, heaps[w][0][1], theirs.get(w, 1.0)), w) for w in left]
        heapq.heapify(order)
        picked: list[str] = []
        while order and len(picked) < room:
            _, workspace = heapq.heappop(order)
            heap = heaps[workspace]
            _, campaign = heapq.heappop(heap)
            key, waiting = f"{workspace}/{campaign}", left[workspace][campaign]
            slice_id = waiting.pop()
            accounts = (
                (workspace, max(SMALLEST_WEIGHT, theirs.get(workspace, 1.0))),
                (key, max(SMALLEST_WEIGHT, own.get(campaign, 1.0))),
            )
            self._charge(slice_id, campaign, accounts, (seconds or {}).get(slice_id, 0.0))
            picked.append(slice_id)
            if waiting:
                heapq.heappush(heap, (self._ends(key, campaign, own.get(campaign, 1.0)), campaign))
            if heap:
                heapq.heappush(order, (self._ends(workspace, heap[0][1], theirs.get(workspace, 1.0)), workspace))
        return picked

    def _ends(self, account: str, campaign: str, weight: float) -> float:
        """Return the virtual time at which an account's next turn, one of this campaign, would end."""
        return self._virtual[account] + self._cost(campaign) / max(SMALLEST_WEIGHT, weight)

    def _cost(self, campaign: str) -> float:
        return self._typical.get(campaign, FIRST_COST)

    def _charge(
        self, slice_id: str, campaign: str, accounts: tuple[tuple[str, float], tuple[str, float]], before: float
    ) -> None:
        cost = self._cost(campaign)
        for key, weight in accounts:
            self._virtual[key] += cost / weight
        self._turns[slice_id] = _Turn(accounts, campaign, cost, before)

    def _enter(self, left: Mapping[str, Mapping[str, object]]) -> None:
        """Start new queues at the lowest virtual time of the queues at work, and forget the idle ones.

        Workspaces start at the level of workspaces, campaigns at the level of campaigns.
        """
        busy = {key for turn in self._turns.values() for key, _ in turn.accounts}
        levels = [{*left}, *({f"{w}/{c}" for c in campaigns} for w, campaigns in left.items())]
        for keys in levels:
            going = [self._virtual[key] for key in keys if key in self._active]
            floor = min(going, default=0.0)
            for key in keys - self._active:
                self._virtual[key] = max(floor, self._virtual.get(key, floor)) if going else 0.0
        self._active = set().union(*levels)
        kept = self._active | busy
        self._virtual = {key: value for key, value in self._virtual.items() if key in kept}
        campaigns = {key.partition("/")[2] for key in kept}
        self._typical = {campaign: cost for campaign, cost in self._typical.items() if campaign in campaigns}
