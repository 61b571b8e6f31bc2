"""Waits until aggregates that a campaign names are computed for all users, after a workspace file was edited."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from engine.cli.opening import say
from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.app import App
    from engine.domain.campaign import CampaignRecord

PATIENCE: Final = 60.0
"""Seconds that an apply waits: some million events are counted in that time."""

ASK_EVERY: Final = 0.2
"""Seconds between two looks."""


def wait_for_aggregates(app: App, record: CampaignRecord) -> None:
    """Wait until every user of the campaign's workspace has the aggregates that its file names.

    Before, a user with events looks like one without. Raises `EngineError` where that takes longer than `PATIENCE`.
    """
    named = sorted(set(record.shapes).intersection(app.book.catalogue(record.workspace).aggregates))
    if not named:
        return
    until, told = time.monotonic() + PATIENCE, False
    while _pending(app, record.workspace):
        if not told:
            say(f"{record.workspace}: waiting until {', '.join(named)} is computed for all users")
            told = True
        if time.monotonic() > until:
            raise EngineError(
                f"{', '.join(named)} is not computed for all users of {record.workspace} yet",
                remedy="do the feed and the workers run (tidegate status)? then apply again",
            )
        time.sleep(ASK_EVERY)


def _pending(app: App, workspace: str) -> bool:
    """Whether the feed has the workspace's users derived, or will: it has seen the workspace with other aggregates."""
    from engine.predicate.workspace_set import derived_shape

    noted = app.stores.feeds.read().derived.get(workspace)
    wanted = derived_shape(app.book.catalogue(workspace))
    return noted is not None and (noted != wanted or app.stores.index_requests.deriving(workspace) > 0)
