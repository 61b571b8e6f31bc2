"""The pages, one module each; `ALL` lists them in the order in which addresses are matched."""

from __future__ import annotations

from typing import Final

from engine.web.page import Page
from engine.web.pages import campaign, campaign_acts, campaigns, login, overview, probes, queue_acts

ALL: Final[tuple[Page, ...]] = (
    *overview.PAGES,
    *campaigns.PAGES,
    *campaign.PAGES,
    *campaign_acts.PAGES,
    *queue_acts.PAGES,
    *login.PAGES,
    *probes.PAGES,
)
