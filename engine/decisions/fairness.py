"""Choose the next work: weighted deficit round-robin over workspaces, and within each over its campaigns. Pure.

Each turn credits a campaign with its weight, and each piece of work costs one (Shreedhar and Varghese, "Efficient fair
queuing using deficit round-robin", 1995). A campaign of a million users therefore takes turns with one of a hundred. An
empty queue keeps no credit, so no campaign saves up for a burst. Workspaces take turns one piece at a time, so the
weights of a workspace's campaigns divide only its own share.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

SMALLEST_WEIGHT: Final = 0.01
"""A lower weight would make a queue wait hundreds of turns, so it counts as this."""

_WORKSPACES: Final = ""
"""The key in `last` for the workspace of the last turn; no workspace has this name."""


@dataclass(frozen=True, slots=True)
class Turns:
    """State between two calls: the credit of each queue, and who had the last turn."""

    credit: Mapping[str, float] = field(default_factory=dict)
    last: Mapping[str, str] = field(default_factory=dict)


def share(
    queues: Mapping[str, Mapping[str, Sequence[str]]], weights: Mapping[str, float], room: int, turns: Turns
) -> tuple[list[str], Turns]:
    """Pick up to `room` pieces of work from `queues` (workspace -> campaign -> pieces in order).

    `weights` are of campaigns (default 1); a workspace weighs 1. Return the pieces and the turns for the next call.
    """
    credit = dict(turns.credit)
    last = dict(turns.last)
    picked: list[str] = []
    left = {w: {c: deque(pieces) for c, pieces in campaigns.items() if pieces} for w, campaigns in queues.items()}
    left = {workspace: campaigns for workspace, campaigns in left.items() if campaigns}
    while left and len(picked) < room:
        workspace = _next(sorted(left), last.get(_WORKSPACES))
        last[_WORKSPACES] = workspace
        picked.append(_pick(workspace, left[workspace], weights, credit, last))
        if not left[workspace]:
            del left[workspace]
    waiting = {f"{w}/{c}" for w, campaigns in left.items() for c in campaigns}
    return picked, Turns({key: value for key, value in credit.items() if key in waiting}, last)


def _pick(
    workspace: str,
    campaigns: dict[str, deque[str]],
    weights: Mapping[str, float],
    credit: dict[str, float],
    last: dict[str, str],
) -> str:
    """Take one piece from a workspace. A turn starts and ends with a credit below 1; it may span calls."""
    while True:
        campaign = _next(sorted(campaigns), last.get(workspace))
        key, pieces = f"{workspace}/{campaign}", campaigns[campaign]
        if credit.get(key, 0.0) < 1:
            credit[key] = credit.get(key, 0.0) + max(SMALLEST_WEIGHT, weights.get(campaign, 1.0))
        piece = None
        if credit[key] >= 1:
            piece = pieces.popleft()
            credit[key] -= 1
        if not pieces:
            del campaigns[campaign]
            del credit[key]
        if not pieces or credit[key] < 1:
            last[workspace] = campaign
        if piece is not None:
            return piece


def _next(names: Sequence[str], after: str | None) -> str:
    """Return the first of the sorted `names` after `after`, wrapping around."""
    return next((name for name in names if after is not None and name > after), names[0])
