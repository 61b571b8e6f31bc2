"""Judge running campaigns: move slow ones to their slow lane, and pause those with too many failed deliveries."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from threading import Lock
from typing import Final

from engine.clock import Clock, millis
from engine.decisions.slow_and_failing import is_slow, over_budget, percentile, seconds_per_user
from engine.domain.campaign import CampaignRecord, Slowness
from engine.domain.counts import Ends
from engine.domain.keys import enrolment_prefix
from engine.domain.lifecycle import GOING, CampaignState
from engine.domain.stuck import StuckBy
from engine.pipeline.campaigns.compiled_cache import CampaignCache
from engine.pipeline.ports.campaigns import CampaignStore
from engine.pipeline.ports.enrolments import EnrolmentCounts
from engine.policy.models import Profile
from engine.telemetry.events import emit


def refused(record: CampaignRecord) -> bool:
    """Return whether a campaign is stuck because the provider refuses its mails, whoever their recipients are."""
    return StuckBy.SENDER in record.stuck_by


MEASURED_EVERY: Final = 1.0
"""Seconds between two writes of a campaign's batch times by one process; it writes a batch above the limit at once."""


@dataclass(slots=True)
class _BatchTimes:
    """Seconds per user of the batches of one campaign that this process has measured and not written yet."""

    seconds: list[float] = field(default_factory=list)
    written_at: float = float("-inf")


class CampaignHealth:
    """Measures and judges campaigns; writes the verdict to the campaign, by which routing chooses the lane."""

    def __init__(
        self,
        campaigns: CampaignStore,
        counts: EnrolmentCounts,
        campaign_cache: CampaignCache,
        clock: Clock,
        *,
        every: float = MEASURED_EVERY,
    ) -> None:
        self._campaigns = campaigns
        self._counts = counts
        self._campaign_cache = campaign_cache
        self._clock = clock
        self._every = every
        self._times: dict[str, _BatchTimes] = {}
        self._lock = Lock()

    def batch(self, record: CampaignRecord, profile: Profile, users: int, took: timedelta, query: str) -> None:
        """Record the measurement of one decided batch; move the campaign to its slow lane or back if needed.

        All processes judge together: each writes its measurements to the campaign, and judges by the latest ones of all
        processes. `query` is the named query by which the batch read its users.
        """
        rule = profile.slow_when
        if rule is None or users == 0:
            return
        seconds, limit = seconds_per_user(took, users), rule.per_user_p95.total_seconds()
        with self._lock:
            times = self._times.setdefault(record.uid, _BatchTimes())
            times.seconds.append(seconds)
            now = self._clock.monotonic()
            suspect = seconds > limit and not record.slowed
            if not suspect and now - times.written_at < self._every:
                del times.seconds[: -rule.batches]
                return
            measured, times.seconds, times.written_at = times.seconds, [], now
        recent = self._campaigns.measured(record.uid, measured, rule.batches)
        slow = is_slow(recent, rule.per_user_p95, rule.batches, slowed=record.slowed)
        if slow == record.slowed:
            return
        at, moved = self._clock.system_now(), record.slowness
        if not slow and moved is not None and at - moved.since < millis(rule.at_least):
            return
        verdict = Slowness(at, len(recent), percentile(recent, 0.5), percentile(recent, 0.95), limit, query)
        if self._campaigns.set_slowed(record.uid, slow, verdict):
            emit(
                "campaign.slowed" if slow else "campaign.recovered",
                workspace=record.workspace,
                campaign=record.name,
                campaign_uid=record.uid,
                profile=profile.profile,
                reason=verdict.text,
            )

    def failures(self, record: CampaignRecord) -> Ends:
        """Count a campaign's failed deliveries and pause it if they exceed its error budget; return the counts.

        A paused campaign waits for a person to resume it. The person who resumes it accepts the failures so far: the
        budget counts from there on.
        """
        record = self._campaigns.get(record.uid) or record  # a person may have resumed it since it was read
        counted = self._counts.of(enrolment_prefix(record.workspace, record.uid)).ends.since(record.accepted)
        if over_budget(counted.failed, counted.ended, self._campaign_cache.profile(record).errors.budget):
            since = " since it was resumed" if record.accepted.ended else ""
            self._over_budget(record, counted, f"{counted.failed:,} of {counted.ended:,} deliveries failed{since}")
        return counted

    def burst(self, record: CampaignRecord, recent: Ends) -> bool:
        """Pause a campaign because most of its latest deliveries failed, without a count over its enrolments.

        Return True if the campaign must not be sent further: it is paused, or its state has changed. Return False if a
        person has resumed it meanwhile, or its profile only reports failures.
        """
        now = self._campaigns.get(record.uid)
        if now is None or now.state not in GOING:
            return True
        if now.budget_from != record.budget_from:
            return False
        return self._over_budget(now, recent, f"{recent.failed:,} of the last {recent.ended:,} deliveries failed")

    def _over_budget(self, record: CampaignRecord, ends: Ends, failed: str) -> bool:
        profile = self._campaign_cache.profile(record)
        labels = {"workspace": record.workspace, "campaign": record.name, "campaign_uid": record.uid}
        emit("campaign.over_budget", **labels, profile=profile.profile, failed=ends.failed, ended=ends.ended)
        if record.state not in GOING or profile.errors.then != "pause":
            return False
        reason = (
            f"the error budget: {failed} ({ends.failed / ends.ended:.1%}), "
            f"the profile {profile.profile} allows {profile.errors.budget:.1%}"
        )
        to = record.state.value
        if self._campaigns.move(record, CampaignState.PAUSED, resume_to=to, paused_reason=reason):
            emit("campaign.paused", **labels, reason="error_budget", state=CampaignState.PAUSED.value)
        return True
