"""Is anything open? What `clock advance` and the tests wait for: facts, not seconds."""

from __future__ import annotations

from collections.abc import Callable

from engine.clock import Clock
from engine.domain.campaign import STAYS_TO_END
from engine.domain.lifecycle import LOOKED_AT, CampaignState
from engine.pipeline.ports import CampaignStore, DeliveryStore, RunStore, StayStore


class Openness:
    """Tells what is still open at the present campaign time."""

    def __init__(
        self,
        campaigns: CampaignStore,
        runs: RunStore,
        stays: StayStore,
        deliveries: DeliveryStore,
        clock: Clock,
        time_is_set: Callable[[], bool],
    ) -> None:
        self._campaigns = campaigns
        self._runs = runs
        self._stays = stays
        self._deliveries = deliveries
        self._clock = clock
        self._time_is_set = time_is_set

    def what(self) -> str | None:
        """One thing that is open, in words; None where nothing is.

        Work moves from a run to a delivery to a due stay to a run. No run is undecided at the first look and none was
        made until the last one, so nothing can have moved past the looks in between.

        Open are: a scheduled campaign whose start has come, a pass not yet made after campaign time was set, an
        undecided run, a stay due, a delivery on its way that is not put off in campaign time. Paused campaigns stand
        still and do not count.
        """
        now = self._clock.campaign_now()
        records = self._campaigns.in_states(
            (
                CampaignState.SCHEDULED,
                CampaignState.LIVE,
                CampaignState.DRAINING,
                CampaignState.PAUSED,
                CampaignState.CANCELLED,
            )
        )
        for record in records:
            if record.state is CampaignState.SCHEDULED and (record.starts_at or 0) <= now:
                return f"campaign {record.name} is to be launched"
            if record.state is CampaignState.CANCELLED and record.pass_as_of == STAYS_TO_END:
                return f"campaign {record.name} has stays to end"
            going = record.state in (CampaignState.LIVE, CampaignState.DRAINING)
            if going and self._time_is_set() and record.pass_as_of < now:
                return f"campaign {record.name} has a pass to make"
        moving = [record.uid for record in records if record.state in LOOKED_AT]
        standing = [record.uid for record in records if record.state not in LOOKED_AT]
        runs = self._runs.count_all()
        for run in self._runs.undecided():
            if run.campaign not in standing:
                return f"run {run.id} is not decided"
        if moving and self._deliveries.has_outgoing(moving, now):
            return "a delivery is on its way"
        due = self._stays.first_due_campaign(now, standing)
        if due is not None:
            return f"a stay of campaign {due} is due"
        return "a run was made meanwhile" if self._runs.count_all() != runs else None
