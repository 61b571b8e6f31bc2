"""What a campaign needs and nothing serves: it is launched all the same, with a warning."""

from __future__ import annotations

from engine.decisions.routing import route
from engine.domain.campaign import CampaignRecord
from engine.errors import EngineError
from engine.pipeline.campaigns.compiled_cache import routing_facts
from engine.pipeline.insight.liveness import Liveness
from engine.policy.models import LaneKind
from engine.policy.policyset import PolicySet


def unserved(policies: PolicySet, liveness: Liveness, record: CampaignRecord) -> list[str]:
    """Return, in words, the lanes and loops that this campaign needs and that nothing has served for 10 s."""
    facts = routing_facts(record)
    try:
        lanes = [route(policies, facts, suspect=False, kind=kind) for kind in (LaneKind.DECIDE, LaneKind.DELIVER)]
    except EngineError:  # the policies cannot be read: other commands report that
        lanes = []
    return liveness.missing(["control", *lanes])
