"""Watches campaigns: those that turn slow change lanes, those that fail too much pause, those that are stuck say so."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from threading import Lock
from typing import Final

from engine.clock import format_duration, millis
from engine.domain.campaign import CampaignRecord
from engine.domain.keys import stay_prefix
from engine.domain.lifecycle import GOING, CampaignState, DeliveryState
from engine.domain.work import SliceKind, Waiting
from engine.pipeline.book import CampaignBook
from engine.pipeline.ports import CampaignStore, StayCounts
from engine.policy.models import Profile
from engine.pressure import is_slow, over_budget
from engine.telemetry.events import emit

STUCK_ERRORS: Final = 5
"""Claims in a row that raised, after which a slice keeps its campaign from finishing."""


def stuck(record: CampaignRecord) -> bool:
    """Whether a campaign is marked as stuck."""
    return record.stuck is not None


class Watching:
    """Measures and judges; what it decides is written to the campaign, and routing follows."""

    def __init__(
        self,
        campaigns: CampaignStore,
        counts: StayCounts,
        book: CampaignBook,
        *,
        attempt_limit: timedelta,
    ) -> None:
        self._campaigns = campaigns
        self._counts = counts
        self._book = book
        self._attempt_limit = attempt_limit
        self._measured: dict[str, deque[float]] = {}
        self._lock = Lock()

    def batch(self, record: CampaignRecord, profile: Profile, users: int, took: timedelta) -> None:
        """Take the measurement of one decided batch; moves the campaign to its slow lane, or back."""
        rule = profile.slow_when
        if rule is None or users == 0:
            return
        with self._lock:
            kept = self._measured.setdefault(record.uid, deque(maxlen=rule.batches))
            kept.append(took.total_seconds() / users)
            slow = is_slow(list(kept), rule.per_user_p95, rule.batches, slowed=record.slowed)
            if slow == record.slowed:
                return
            kept.clear()  # the other lane is judged by its own measurements
        self._campaigns.set_slowed(record.uid, slow)
        emit(
            "campaign.slowed" if slow else "campaign.recovered",
            workspace=record.workspace,
            campaign=record.name,
            campaign_uid=record.uid,
            profile=profile.profile,
        )

    def failures(self, record: CampaignRecord) -> None:
        """Judge a campaign's error budget after deliveries failed; a paused one waits for a person to resume it."""
        profile = self._book.profile(record)
        counts = self._counts.of(stay_prefix(record.workspace, record.uid))
        ends = [one.states for one in counts.messages.values()]
        failed = sum(states.get(DeliveryState.FAILED.value, 0) for states in ends)
        ended = failed + sum(states.get(DeliveryState.SENT.value, 0) for states in ends)
        if not over_budget(failed, ended, profile.errors.budget):
            return
        labels = {"workspace": record.workspace, "campaign": record.name, "campaign_uid": record.uid}
        emit("campaign.over_budget", **labels, profile=profile.profile, failed=failed, ended=ended)
        pausing = record.state in GOING and profile.errors.then == "pause"
        if pausing and self._campaigns.move(record, CampaignState.PAUSED, resume_to=record.state.value):
            emit("campaign.paused", **labels, reason="error_budget", state=CampaignState.PAUSED.value)

    def mark_stuck(
        self, records: Mapping[str, CampaignRecord], marked: Iterable[str], waiting: Sequence[Waiting]
    ) -> None:
        """Mark campaigns that cannot finish by themselves with the reason, and take the mark away when it is mended.

        `marked` are the uids of those that bear one. A batch of sending that was broken off leaves deliveries
        attempting until another sender has come to them.
        """
        limit = millis(self._attempt_limit)
        failing = {one.campaign: one.id for one in waiting if one.errors >= STUCK_ERRORS}
        sending = [one for one in waiting if one.kind is SliceKind.DELIVER]
        left = {one.campaign: one.id for one in sending if (one.broken_for or 0) > limit}
        for uid in sorted({*failing, *left, *marked}.intersection(records)):
            record, reason = records[uid], None
            if uid in failing:
                reason = f"slice {failing[uid]} keeps failing; the log says why"
            elif uid in left:
                longest = format_duration(self._attempt_limit)
                reason = f"slice {left[uid]} was broken off more than {longest} ago: its deliveries may be attempting"
            if reason == record.stuck:
                continue
            self._campaigns.set_stuck(uid, reason)
            if reason is not None:
                emit(
                    "campaign.stuck",
                    workspace=record.workspace,
                    campaign=record.name,
                    campaign_uid=uid,
                    reason=reason,
                    slice=failing.get(uid) or left.get(uid),
                )
