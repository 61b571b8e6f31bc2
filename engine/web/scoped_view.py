"""Leave out of the picture what belongs to other workspaces: an access of one workspace sees none of their names."""

from __future__ import annotations

from dataclasses import replace

from engine.domain.system_view import SystemView, Times


def scoped(view: SystemView, workspace: str | None) -> SystemView:
    """Return the picture as an access of `workspace` may see it (None: of all workspaces).

    Lanes, fleets and stores serve all workspaces, so their depth and rates stay; names of campaigns, and how many
    campaigns there are, go.
    """
    if workspace is None:
        return view
    lanes = (
        replace(lane, waits=_without(lane.waits, workspace), works=_without(lane.works, workspace))
        for lane in view.lanes
    )
    stores = (replace(store, calls=_without(store.calls, workspace)) for store in view.stores)
    return replace(view, lanes=tuple(lanes), stores=tuple(stores), campaigns={})


def _without(times: Times, workspace: str) -> Times:
    own = times.worst_campaign.startswith(f"{workspace}/")
    return times if own else replace(times, worst_campaign="")
