"""Watch campaigns: slow ones change lanes, ones with too many failures pause."""

from __future__ import annotations

from collections import deque
from datetime import timedelta
from threading import Lock

from engine.decisions.slow_and_failing import is_slow, over_budget
from engine.domain.campaign import CampaignRecord
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
    """Return whether the provider refuses a campaign's mails for a reason that does not lie with their recipients."""
    return StuckBy.SENDER in record.stuck_by


class CampaignHealth:
    """Measures and judges campaigns; it writes its verdict to the campaign, and routing follows."""

    def __init__(
        self,
        campaigns: CampaignStore,
        counts: EnrolmentCounts,
        campaign_cache: CampaignCache,
    ) -> None:
        self._campaigns = campaigns
        self._counts = counts
        self._campaign_cache = campaign_cache
        self._measured: dict[str, deque[float]] = {}
        self._lock = Lock()

    def batch(self, record: CampaignRecord, profile: Profile, users: int, took: timedelta) -> None:
        """Record the measurement of one decided batch; move the campaign to its slow lane or back if needed."""
        rule = profile.slow_when
        if rule is None or users == 0:
            return
        with self._lock:
            kept = self._measured.setdefault(record.uid, deque(maxlen=rule.batches))
            kept.append(took.total_seconds() / users)
            slow = is_slow(list(kept), rule.per_user_p95, rule.batches, slowed=record.slowed)
            if slow == record.slowed:
                return
            kept.clear()  # the other lane needs measurements of its own
        self._campaigns.set_slowed(record.uid, slow)
        emit(
            "campaign.slowed" if slow else "campaign.recovered",
            workspace=record.workspace,
            campaign=record.name,
            campaign_uid=record.uid,
            profile=profile.profile,
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
        """Pause a campaign because nearly all its latest deliveries failed, without a count over its enrolments.

        Return whether it is paused, or not to be sent for another reason; a person may have resumed it meanwhile.
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
