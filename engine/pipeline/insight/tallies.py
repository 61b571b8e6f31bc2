"""Keep exact counts of campaigns fresh, within a bounded share of the time (`engine.decisions.next_tally`).

The clock's process counts in a thread of its own, so that its tick does not wait. A count reads pages of enrolments,
and each page passes the gate as bulk work does: while MongoDB is slow for its other users, counting gives way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from engine.clock import Clock
from engine.decisions.next_tally import Countable, is_final, next_tally, rest
from engine.domain.campaign import CampaignRecord
from engine.domain.campaign_progress import Tally, TallyHead
from engine.domain.counts import CampaignCounts, FailureCount, merged_counts, merged_failures
from engine.domain.keys import enrolment_prefix
from engine.domain.lifecycle import CampaignState
from engine.pipeline.campaigns.live_index import LiveCampaigns
from engine.pipeline.ports.tallies import CountPages, TallyStore
from engine.query_metrics import CallGate, working_on

PAGE: Final = 20_000
"""Enrolments that one query counts: some 80 ms."""

AHEAD: Final = 1.0
"""Seconds of its rest that a count may begin early: the thread looks once a second, and small campaigns need less."""

HEADS_AGAIN: Final = 300.0
"""Seconds after which all heads are read again: another clock may have counted meanwhile."""


class ClosableGate(CallGate, Protocol):
    """The gate of bulk work (`engine.pipeline.gate.bulk_gate`)."""

    @property
    def closed(self) -> bool:
        """Whether no bulk work may begin."""


def entered(record: CampaignRecord) -> bool:
    """Return whether anybody may have entered the campaign."""
    return record.state not in (CampaignState.DRAFT, CampaignState.SCHEDULED)


class TallyKeeper:
    """Counts one campaign after another. `stop` says that the process ends: a count is then given up."""

    def __init__(
        self,
        *,
        counts: CountPages,
        tallies: TallyStore,
        live_campaigns: LiveCampaigns,
        gate: ClosableGate,
        clock: Clock,
        stop: Callable[[], bool],
    ) -> None:
        self._counts = counts
        self._tallies = tallies
        self._live_campaigns = live_campaigns
        self._gate = gate
        self._clock = clock
        self._stop = stop
        self._heads: dict[str, TallyHead] = {}
        self._read_at = float("-inf")
        self._rest_until = float("-inf")
        self._turn = 0

    def step(self) -> bool:
        """Count one campaign if it is time for it; return whether one was counted. Raises the stores' outages."""
        now = self._clock.monotonic()
        if now - self._read_at > HEADS_AGAIN:
            self._read_heads(now)
        if self._gate.closed:
            return False
        records = self._live_campaigns.where(entered)
        campaigns = {uid: Countable(record.closed, record.endings) for uid, record in records.items()}
        at, rested = self._clock.system_now(), now >= self._rest_until - AHEAD
        uid = next_tally(campaigns, self._heads, at, rested=rested, turn=self._turn)
        if uid is None:
            return False
        tally = self.count(records[uid])
        if tally is None:
            return False
        self._turn += rested
        self._heads[uid] = tally.head
        self._rest_until = max(self._rest_until, self._clock.monotonic()) + rest(tally.took)
        return True

    def count(self, record: CampaignRecord) -> Tally | None:
        """Count a campaign and keep its tally; return None if the process stops or the gate closes meanwhile."""
        campaign = Countable(record.closed, record.endings)
        at = self._clock.system_now()
        took = 0.0
        counts: list[CampaignCounts] = []
        failures: list[FailureCount] = []
        prefix, last = enrolment_prefix(record.workspace, record.uid), ""
        with working_on(record.uid, record.name, self._gate):
            while True:
                if self._stop() or self._gate.closed:
                    return None
                began = self._clock.monotonic()
                page = self._counts.page(prefix, last, PAGE)
                took += self._clock.monotonic() - began
                counts.append(page.counts)
                failures += page.failures
                if page.last is None:
                    break
                last = page.last
        total = merged_counts(counts)
        final = campaign.closed and not total.active and not total.on_their_way
        tally = Tally(total, at, took, final, campaign.closed, campaign.ending, merged_failures(failures))
        finished = campaign.closed and record.state is CampaignState.FINISHED
        unfit = bool(total.faults(closed=finished))
        self._tallies.write(record.uid, record.workspace, record.name, tally, channels(record), unfit=unfit)
        return tally

    def is_final(self, record: CampaignRecord) -> bool:
        """Whether the tally of a campaign is final, as far as this process knows."""
        return is_final(Countable(record.closed, record.endings), self._heads.get(record.uid))

    def _read_heads(self, now: float) -> None:
        """Read when each campaign was counted; the rest after the latest count goes on, whichever clock made it."""
        self._heads = self._tallies.heads()
        self._read_at = now
        at = self._clock.system_now()
        left = max((head.at / 1e3 + rest(head.took) - at / 1e3 for head in self._heads.values()), default=0.0)
        self._rest_until = max(self._rest_until, now + left)


def channels(record: CampaignRecord) -> Mapping[str, str]:
    """Return the channel of each message of a campaign's file, by the message's name."""
    spec = record.spec if isinstance(record.spec, Mapping) else {}
    written = spec.get("messages")
    messages = [message for message in written if isinstance(message, Mapping)] if isinstance(written, list) else []
    return {str(message.get("name")): str(message.get("channel", "email")) for message in messages}
