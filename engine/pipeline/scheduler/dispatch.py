"""Dispatch: enqueue slices in their lanes, a few per worker thread, the next one by fair shares.

Slices wait in MongoDB. So pausing, rerouting and fairness never change a queue, and the dispatcher refills a Redis that
has lost everything.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Final

from engine.decisions.fairness import FairShares
from engine.decisions.poison import DEATHS_TO_HALVE
from engine.decisions.routing import route
from engine.domain.campaign import CampaignRecord
from engine.domain.lifecycle import LOOKED_AT, CampaignState, SliceState
from engine.domain.work import Run, SliceKind, Waiting
from engine.pipeline.campaigns.compiled_cache import CampaignCache, routing_facts
from engine.pipeline.ports.messaging import Messenger
from engine.pipeline.ports.work import SliceStore
from engine.pipeline.scheduler.next_slices import next_slices
from engine.pipeline.scheduler.stuck_campaigns import Obstacles
from engine.policy.models import LaneKind, Urgency

MOST_WAITING: Final = 10_000
"""Open slices read in one tick."""


class Dispatcher:
    """Enqueues the next slices; remembers whose turn was last.

    The first tick treats no slice as enqueued: an earlier clock may have died after it marked a slice and before it
    sent the message.
    """

    def __init__(
        self,
        slices: SliceStore,
        campaign_cache: CampaignCache,
        messenger: Callable[[], Messenger],
        treat: Callable[[str], None],
        obstacles: Obstacles,
        *,
        ring_again: timedelta,
    ) -> None:
        self._slices = slices
        self._campaign_cache = campaign_cache
        self._messenger = messenger
        self._treat = treat
        self._obstacles = obstacles
        self._ring_again = ring_again
        self._shares: dict[tuple[str, Urgency], FairShares] = defaultdict(FairShares)
        self._heard_for = timedelta(0)
        self._rung_in: dict[str, str] = {}

    def run(self, records: Mapping[str, CampaignRecord], stuck: Iterable[str], runs: Sequence[Run]) -> int:
        """Enqueue slices of the campaigns in `records`, of which `stuck` are marked so; return how many.

        `runs` are the undecided ones. Slices of a campaign that does not fit its workspace wait until it does.
        """
        waiting = self._slices.waiting(self._heard_for, MOST_WAITING)
        self._heard_for = self._ring_again
        self._obstacles.mark(records, stuck, waiting, runs)
        self._measure(waiting)
        if not waiting:
            return 0
        self._drop_left(waiting, records)
        lanes = {slice_.id: lane for slice_ in waiting if (lane := self._lane(slice_, records)) is not None}
        waiting = self._following(waiting, lanes)
        busy = Counter(lanes[slice_.id] for slice_ in waiting if slice_.id in lanes and (slice_.held or slice_.rung))
        flying = Counter(
            (slice_.campaign, slice_.kind is SliceKind.DELIVER) for slice_ in waiting if slice_.held or slice_.rung
        )
        ready: dict[str, list[Waiting]] = defaultdict(list)
        for slice_ in waiting:
            if slice_.held or slice_.rung or not slice_.ready or slice_.id not in lanes:
                continue
            record = records[slice_.campaign]
            if slice_.deaths >= DEATHS_TO_HALVE or slice_.overruns:
                treat = partial(self._treat, slice_.id)
                self._obstacles.attempt(record, "halve a slow slice, or halve or end a deadly one", treat, None)
            flight = (slice_.campaign, slice_.kind is SliceKind.DELIVER)
            if flying[flight] < self._most(record, slice_, lanes[slice_.id]):
                flying[flight] += 1
                ready[lanes[slice_.id]].append(slice_)
        return sum(self._ring(lane, pieces, busy[lane], records) for lane, pieces in ready.items())

    def _following(self, waiting: Sequence[Waiting], lanes: Mapping[str, str]) -> list[Waiting]:
        """Let enqueued slices follow their campaigns: a slice whose lane has changed counts as not enqueued.

        It gets a message in its new lane at once, however long the old lane's fleet takes to pick the old one up. Only
        one of the two claims the slice.
        """
        self._rung_in = {slice_.id: self._rung_in[slice_.id] for slice_ in waiting if slice_.id in self._rung_in}
        return [
            replace(slice_, rung=False)
            if slice_.rung and self._rung_in.get(slice_.id, "") not in ("", lanes.get(slice_.id))
            else slice_
            for slice_ in waiting
        ]

    def _most(self, record: CampaignRecord, slice_: Waiting, lane: str) -> int:
        """Return how many slices of a campaign may run at once; for delivering slices, per process of the lane."""
        most = self._campaign_cache.profile(record).in_flight
        return most * self._campaign_cache.policies.processes(lane) if slice_.kind is SliceKind.DELIVER else most

    def _drop_left(self, waiting: Sequence[Waiting], records: Mapping[str, CampaignRecord]) -> None:
        """Drop unclaimed delivering slices of ended campaigns: they waited for a back-off while others did the rest."""
        for slice_ in waiting:
            record = records.get(slice_.campaign)
            ended = record is None or record.state is CampaignState.FINISHED
            if slice_.kind is SliceKind.DELIVER and ended and not slice_.held:
                self._slices.end_unclaimed(slice_.id, SliceState.DROPPED)

    def _lane(self, slice_: Waiting, records: Mapping[str, CampaignRecord]) -> str | None:
        """Return the lane of a slice under the policies in force; None if its campaign must not be worked on."""
        record = records.get(slice_.campaign)
        delivering = slice_.kind is SliceKind.DELIVER
        if record is None or record.uid in self._obstacles.unfit:
            return None
        if record.state not in LOOKED_AT and not record.converting and not delivering:
            return None
        kind = LaneKind.DELIVER if delivering else LaneKind.DECIDE
        facts = routing_facts(record, slow=slice_.slow)
        return route(self._campaign_cache.policies, facts, suspect=slice_.suspect, kind=kind)

    def _measure(self, waiting: Sequence[Waiting]) -> None:
        """Charge the measured time of the slices that were picked while campaigns competed."""
        unmeasured = {slice_id for shares in self._shares.values() for slice_id in shares.unmeasured}
        if not unmeasured:
            return
        there = {slice_.id: slice_ for slice_ in waiting}
        missing = [slice_id for slice_id in unmeasured if slice_id not in there]
        ended = self._slices.worked(missing) if missing else {}
        for shares in self._shares.values():
            for slice_id in shares.unmeasured:
                slice_ = there.get(slice_id)
                if slice_ is not None:
                    shares.measured(slice_id, slice_.worked / 1000, ended=not slice_.held and not slice_.rung)
                elif slice_id in ended:
                    shares.measured(slice_id, ended[slice_id] / 1000, ended=True)
                else:
                    shares.forget(slice_id)

    def _ring(self, lane: str, pieces: Sequence[Waiting], busy: int, records: Mapping[str, CampaignRecord]) -> int:
        """Enqueue what the lane has room for: by urgency, and within it by fair shares."""
        policies = self._campaign_cache.policies
        picked = next_slices(
            self._shares,
            lane,
            pieces,
            policies.room(lane) - busy,
            policies=policies,
            profile=lambda uid: self._campaign_cache.profile(records[uid]),
        )
        if not picked:
            return 0
        delivering = {slice_.id for slice_ in pieces if slice_.kind is SliceKind.DELIVER}
        self._slices.ring(picked, lane)
        self._rung_in |= dict.fromkeys(picked, lane)
        messenger = self._messenger()
        messenger.process([(piece, lane) for piece in picked if piece not in delivering])
        messenger.deliver([(piece, lane) for piece in picked if piece in delivering])
        return len(picked)
