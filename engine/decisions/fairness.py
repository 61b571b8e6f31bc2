"""Share a lane by cost: fair queueing over workspaces, and within each over its campaigns. Pure.

Each workspace and each campaign has a virtual time: the seconds that its slices have taken, divided by its weight. The
next slice is the one that would end first in virtual time (Demers, Keshav and Shenker, "Analysis and simulation of a
fair queueing algorithm", 1989). A turn's cost is not known before it ends, so it is charged with the typical cost of
the campaign's turns, and corrected once it is measured. A workspace with slow slices therefore gets fewer turns, but
the same time. A queue that was empty starts at the virtual time of those that were not: nobody saves up for a burst,
and idle capacity costs nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

SMALLEST_WEIGHT: Final = 0.01
"""A lower weight would make a queue wait hundreds of turns, so it counts as this."""

FIRST_COST: Final = 1.0
"""Assumed seconds of a campaign's turn before one is measured: the length of a deciding turn."""

LEAST_COST: Final = 0.001
"""Assumed seconds of the shortest turn: a turn that costs nothing would be repeated for ever."""

SMOOTHING: Final = 0.3
"""Weight of the newest measurement in the typical cost of a campaign's turns."""


@dataclass(slots=True)
class _Turn:
    """A slice that was picked: the accounts it is charged to with their weights, and its charge (s) so far.

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
        """The picked slices whose turns have not ended yet, as far as `measured` was told."""
        return frozenset(self._turns)

    @property
    def at_work(self) -> frozenset[str]:
        """The campaigns of these slices."""
        return frozenset(turn.campaign for turn in self._turns.values())

    def measured(self, slice_id: str, seconds: float, *, ended: bool) -> None:
        """Record the measured time of a slice, of all its turns together; `ended` says that its last turn is over."""
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
        """Drop a slice of which nothing is known any more; its assumed cost stays charged."""
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

        `weights` are of campaigns, by which they share what their workspace gets, and `workspace_weights` of
        workspaces; the default is 1. `seconds` is the measured time of the slices that had turns before.
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
        """Return the virtual time of an account at which the next turn of a campaign would end."""
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
        """Start new queues at the virtual time of the others of their kind, and forget the queues that are idle."""
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
