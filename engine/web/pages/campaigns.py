"""`/campaigns`: all campaigns, by state, workspace and name, a page at a time."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from starlette.responses import Response

from engine.decisions.routing import route
from engine.domain.campaign import CampaignRecord
from engine.domain.campaign_progress import Tally
from engine.domain.lifecycle import CampaignState, DeliveryState
from engine.domain.system_view import Late
from engine.errors import EngineError
from engine.pipeline.campaigns.compiled_cache import routing_facts
from engine.policy.models import LaneKind
from engine.web.page import Call, Page, Reach
from engine.web.pages.overview import late_campaigns

SHOWN: Final = 50
"""Campaigns on one page: each costs one document, and one of its tally."""


@dataclass(frozen=True, slots=True)
class Row:
    """One campaign of the list; `lane` is empty if no policy fits it, `tally` None before its first count."""

    record: CampaignRecord
    lane: str
    tally: Tally | None
    sent: int
    failed: int
    late: Late | None = None


def campaigns(call: Call) -> Response:
    """Show a page of the campaigns that the viewer sees and has asked for."""
    workspace = call.viewer.workspace or call.asked("workspace") or None
    text, state = call.asked("q")[:100], call.asked("state")
    states = [CampaignState(state)] if state in set(CampaignState) else []
    first, _, name = call.asked("after").partition("/")
    store = call.app.stores.campaigns
    found = call.read("MongoDB", "the campaigns", lambda: store.page(workspace, states, text, (first, name), SHOWN + 1))
    records = (found or [])[:SHOWN]
    uids = [record.uid for record in records]
    tallies = call.read("MongoDB", "the counts", lambda: call.app.tallies.of(uids)) if uids else {}
    late = {one.uid: one for one in late_campaigns(call)}
    rows = [_row(call, record, (tallies or {}).get(record.uid), late.get(record.uid)) for record in records]
    asked = {
        key: value for key, value in (("q", text), ("state", state), ("workspace", call.asked("workspace"))) if value
    }
    more = None
    if found is not None and len(found) > SHOWN:
        last = records[-1]
        more = "/campaigns?" + urlencode({**asked, "after": f"{last.workspace}/{last.name}"})
    return call.show(
        "campaigns.html",
        title="Campaigns",
        command="tidegate campaign list",
        rows=rows,
        more=more,
        start="/campaigns?" + urlencode(asked) if name else "",
        asked={"q": text, "state": state, "workspace": call.asked("workspace")},
        states=[state.value for state in CampaignState],
        known=[] if call.viewer.workspace else sorted(call.app.catalogues),
        oldest=min((row.tally.at for row in rows if row.tally), default=None),
        found=found is not None,
    )


def lane_of(call: Call, record: CampaignRecord, kind: LaneKind = LaneKind.DECIDE) -> str:
    """Return the lane of a campaign under the policies in force; empty if they give it none."""
    with suppress(EngineError):
        return route(call.app.policies, routing_facts(record), suspect=False, kind=kind)
    return ""


def _row(call: Call, record: CampaignRecord, tally: Tally | None, late: Late | None) -> Row:
    states = [message.states for message in tally.counts.messages.values()] if tally else []
    sent, failed = (
        sum(by_state.get(state.value, 0) for by_state in states) for state in (DeliveryState.SENT, DeliveryState.FAILED)
    )
    return Row(record, lane_of(call, record), tally, sent, failed, late)


PAGES: Final = (Page("/campaigns", campaigns, Reach.OWN, every=5.0),)
