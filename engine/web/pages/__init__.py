"""The pages, one module each; `ALL` lists them in the order in which addresses are matched."""

from __future__ import annotations

from typing import Final

from engine.web.page import Page
from engine.web.pages import (
    campaign,
    campaign_acts,
    campaigns,
    gate,
    lanes,
    login,
    logs,
    overview,
    policies,
    probes,
    queries,
    queue_acts,
    users,
)

ALL: Final[tuple[Page, ...]] = (
    *overview.PAGES,
    *campaigns.PAGES,
    *campaign.PAGES,
    *campaign_acts.PAGES,
    *queue_acts.PAGES,
    *lanes.PAGES,
    *queries.PAGES,
    *policies.PAGES,
    *gate.PAGES,
    *users.PAGES,
    *logs.PAGES,
    *login.PAGES,
    *probes.PAGES,
)
