"""Find a campaign by its name, without importing anything that works on campaigns."""

from __future__ import annotations

from engine.domain.campaign import CampaignRecord
from engine.errors import NotFound, WrongCall
from engine.pipeline.ports.campaigns import CampaignStore


def find_campaign(campaigns: CampaignStore, name: str, workspace: str | None = None) -> CampaignRecord:
    """Return the campaign with this name. Raises `NotFound`, or `WrongCall` if several workspaces have one."""
    records = campaigns.named(name, workspace)
    if not records:
        raise NotFound(f"there is no campaign {name}", remedy="tidegate campaign list shows them")
    if len(records) > 1:
        names = ", ".join(record.workspace for record in records)
        raise WrongCall(f"several workspaces have a campaign {name}: {names}", remedy="name one with --workspace")
    return records[0]
