"""Tell whether an enrolment ends as completed when its last delivery settles, whatever its user does. Pure.

For a user who is not deleted, the next evaluation (`engine.decisions.decide`) checks the goal, the exit rule and the
audience, then inactivity, then whether a message is left. If a campaign checks nothing about the user and the delivery
was the last one, the result is known when the delivery settles, without an evaluation: inactivity counts from the
settling, and the delivery's result does not matter, because a settled message is never chosen again.
"""

from __future__ import annotations

from collections.abc import Collection

from engine.campaign.compiled import CompiledCampaign
from engine.clock import Instant, millis
from engine.domain.settling import Completion


def asks_users(campaign: CompiledCampaign) -> bool:
    """Whether the user's data decides how an enrolment without an open message ends, or whether it converts."""
    leaves = campaign.unmatched_exits and not campaign.audience.compiled.everybody
    return leaves or campaign.exit_rule is not None or campaign.goal is not None


def completion(
    campaign: CompiledCampaign, settled: Collection[str], message: str, settled_at: Instant
) -> Completion | None:
    """Return how an active enrolment ends when `message` settles at `settled_at` (campaign time), after `settled`.

    The answer holds for users who are not deleted, while the campaign is live or draining and still has this revision.
    None means that a message is left or the result depends on the user, so an evaluation must decide.
    """
    if asks_users(campaign):
        return None
    names = {*settled, message}
    if any(other.names.isdisjoint(names) for other in campaign.messages):
        return None
    again = campaign.again_after
    return Completion(campaign.revision, None if again is None else settled_at + millis(again))
