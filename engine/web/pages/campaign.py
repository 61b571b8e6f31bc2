"""`/w/WORKSPACE/campaigns/NAME`: one campaign with counts, runs, events and costs; `/plan`: what a launch would do."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import yaml
from starlette.responses import Response

from engine.campaign.load import TEXTS
from engine.domain.campaign import CampaignRecord
from engine.domain.keys import user_id_of
from engine.domain.lifecycle import CampaignState
from engine.errors import EngineError
from engine.pipeline.insight.campaign_report import conversions, messages
from engine.pipeline.insight.campaign_timeline import Moment, remembered, timeline
from engine.pipeline.insight.statistics import QueryStatistics
from engine.policy.models import LaneKind, Profile
from engine.telemetry.redaction import Redactor, pseudonym_key
from engine.web.page import Call, Page, Reach, not_there
from engine.web.pages.campaigns import lane_of
from engine.web.pages.overview import late_campaigns

if TYPE_CHECKING:
    from engine.pipeline.insight.plan_and_report import Plan

RUNS: Final = 20
SLICES: Final = 40
"""Runs and open slices that the page shows; the latest."""
PLAN_KEPT: Final = 20.0
"""Seconds for which a plan is shown again: counting an audience may take a second."""
_C: Final = CampaignState
ACTS: Final[Mapping[CampaignState, tuple[str, ...]]] = {
    _C.DRAFT: ("launch", "cancel"),
    _C.SCHEDULED: ("cancel",),
    _C.LIVE: ("pause", "stop", "cancel", "replay"),
    _C.PAUSED: ("resume", "stop", "cancel", "replay"),
    _C.DRAINING: ("pause", "cancel", "replay"),
    _C.FINISHED: ("replay",),
    _C.CANCELLED: (),
}
"""What one can do with a campaign in each state."""


def find(call: Call) -> CampaignRecord:
    """Return the campaign that the address names. Raises `NotFound`, and the outages of MongoDB."""
    name, workspace = call.part("name"), call.part("workspace")
    records = call.need("MongoDB", lambda: call.app.stores.campaigns.named(name, workspace))
    if not records:
        raise not_there(f"campaign {name}")
    return records[0]


def path_of(record: CampaignRecord) -> str:
    """Return the address of a campaign's page."""
    return f"/w/{record.workspace}/campaigns/{record.name}"


def campaign(call: Call) -> Response:
    """Show one campaign."""
    app, record = call.app, find(call)
    tally = call.read("MongoDB", "the counts", lambda: app.tallies.of([record.uid]).get(record.uid))
    runs = call.read("MongoDB", "the runs", lambda: app.stores.runs.of_campaign(record.uid, RUNS))
    slices = call.read("MongoDB", "the open slices", lambda: app.stores.slices.open_of(record.uid, SLICES))
    windows = call.read(
        "MongoDB", "the costs", lambda: app.stores.runs.costs_by_window([record.uid]).get(record.uid, [])
    )
    progress = call.read("MongoDB", "the progress", lambda: app.progress.of(record)) if record.launched_at else None
    counts = None if tally is None else tally.counts
    now = call.read("MongoDB", "campaign time", app.clock.campaign_now)
    shown = Redactor(pseudonym_key(app.settings.log_folder)).user
    return call.show(
        "campaign.html",
        title=record.name,
        command=f"tidegate campaign report {record.name} -w {record.workspace}",
        record=record,
        base=path_of(record),
        acts=ACTS[record.state],
        tally=tally,
        progress=progress,
        late=next((one for one in late_campaigns(call) if one.uid == record.uid), None),
        faults=()
        if counts is None
        else counts.faults(closed=record.state is _C.FINISHED and bool(tally and tally.closed)),
        lines=() if counts is None else messages(record, counts),
        converted=None if counts is None or now is None else conversions(record, counts, now),
        failures=[
            (failure.reason, failure.count, ", ".join(failure.messages), shown(user_id_of(failure.example)))
            for failure in (tally.failures if tally else ())
        ],
        runs=sorted(runs or (), key=lambda run: run.as_of, reverse=True),
        slices=slices or (),
        windows=windows or (),
        profile=_profile(call, record),
        lane=lane_of(call, record),
        deliver_lane=lane_of(call, record, LaneKind.DELIVER),
        policy=app.policies.version,
        queries=_queries(call, record),
        events=() if call.live else _events(call, record),
        file=_file(record),
    )


def _profile(call: Call, record: CampaignRecord) -> Profile | None:
    try:
        return call.app.campaign_cache.profile(record)
    except EngineError:
        return None


def _queries(call: Call, record: CampaignRecord) -> list[QueryStatistics]:
    """Return the named queries whose worst case of the last hour was this campaign's, the slowest first."""
    reading = call.site.queries.latest()
    if reading.error:
        call.missing.sentences.append("the measurements of the queries cannot be read: its worst queries are missing")
    worst = [query for query in reading.value or () if query.worst.campaign_uid == record.uid]
    return sorted(worst, key=lambda query: query.worst.seconds, reverse=True)


def _events(call: Call, record: CampaignRecord) -> tuple[list[Moment], bool]:
    """Return the timeline, and whether it comes from the log search."""
    logs = call.site.logs
    found = None if logs is None else call.read("Elasticsearch", "the events", lambda: timeline(logs, record.uid))
    return (remembered(record), False) if not found else (found, True)


def _file(record: CampaignRecord) -> str:
    spec = {key: value for key, value in record.spec.items() if key != TEXTS} if isinstance(record.spec, dict) else {}
    return str(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True)).rstrip()


def planned(call: Call, record: CampaignRecord) -> Plan:
    """Return what a launch now would do; the plan of a revision is kept for `PLAN_KEPT` seconds."""
    key = (record.uid, record.revision)
    kept = call.site.plans.get(key)
    if kept is None or time.monotonic() - kept[0] > PLAN_KEPT:
        if len(call.site.plans) > 100:
            call.site.plans.clear()
        kept = call.site.plans[key] = (time.monotonic(), call.app.plans.plan(record))
    return kept[1]


def plan(call: Call) -> Response:
    """Show what a launch now would do: the audience, the access paths, the cost, the lane."""
    record = find(call)
    return call.show(
        "plan.html",
        title=f"Plan of {record.name}",
        command=f"tidegate campaign plan {record.name} -w {record.workspace}",
        record=record,
        base=path_of(record),
        plan=planned(call, record),
        acts=ACTS[record.state],
    )


_BASE: Final = "/w/{workspace}/campaigns/{name}"
PAGES: Final = (
    Page(_BASE, campaign, Reach.WORKSPACE, every=4.0),
    Page(f"{_BASE}/plan", plan, Reach.WORKSPACE),
)
