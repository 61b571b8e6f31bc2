"""Find a campaign by its name, without importing anything that works on campaigns."""

from __future__ import annotations

from engine.domain.campaign import CampaignRecord
from engine.errors import NotFound, WrongCall
from engine.pipeline.ports.campaigns import CampaignStore


def find_campaign(campaigns: CampaignStore, name: str, workspace: str | None = None) -> CampaignRecord:
    """Return the campaign with this name. Raises `NotFound`, or `WrongCall` if several workspaces have one."""
    found = campaigns.named(name, workspace)
    if not found:
        raise NotFound(f"there is no campaign {name}", remedy="tidegate campaign list shows them")
    if len(found) > 1:
        names = ", ".join(record.workspace for record in found)
        raise WrongCall(f"several workspaces have a campaign {name}: {names}", remedy="name one with --workspace")
    return found[0]
