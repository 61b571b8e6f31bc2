"""Waits until the aggregates that a campaign names are computed for all users, after an edit of a workspace file."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from engine.cli.context import say
from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.app.app import App
    from engine.domain.campaign import CampaignRecord

PATIENCE: Final = 60.0
"""Seconds that an apply waits: enough to count some million events."""

ASK_EVERY: Final = 0.2
"""Seconds between two checks."""


def wait_for_aggregates(app: App, record: CampaignRecord) -> None:
    """Wait until every user of the campaign's workspace has the aggregates that its file names.

    Before that, a user with events looks like one without. Raises `EngineError` after `PATIENCE`.
    """
    named = sorted(set(record.shapes).intersection(app.campaign_cache.catalogue(record.workspace).aggregates))
    if not named:
        return
    until, reported = time.monotonic() + PATIENCE, False
    while _pending(app, record.workspace):
        if not reported:
            say(f"{record.workspace}: waiting until {', '.join(named)} is computed for all users")
            reported = True
        if time.monotonic() > until:
            raise EngineError(
                f"{', '.join(named)} is not computed for all users of {record.workspace} yet",
                remedy="check with tidegate status that the feed and the workers run, then apply again",
            )
        time.sleep(ASK_EVERY)


def _pending(app: App, workspace: str) -> bool:
    """Return whether users still have to be derived.

    The feed has noted other aggregates, or requests to derive wait.
    """
    from engine.catalogue.workspace_set import derived_shape

    noted = app.stores.feeds.read().derived.get(workspace)
    shape = derived_shape(app.campaign_cache.catalogue(workspace))
    return noted is not None and (noted != shape or app.stores.index_requests.deriving(workspace) > 0)
