"""Whether an enrolment ends as completed as its last delivery settles, whatever its user does. Pure.

The next evaluation (`engine.decide`) of an enrolment of a user who is not deleted asks for the goal, the exit rule and
the audience, then for inactivity, then whether a message is left. Where a campaign has nothing to ask of the user and
the delivery was the last one, the answer is known when it settles, and needs no evaluation: inactivity counts from the
settling, and how the delivery ended does not matter, for what has settled is never chosen again.
"""

from __future__ import annotations

from collections.abc import Collection

from engine.campaign.compiled import CompiledCampaign
from engine.clock import Instant, millis
from engine.domain.settling import Completion


def asks_users(campaign: CompiledCampaign) -> bool:
    """Whether it depends on the user how an enrolment without an open message ends, or whether it converts."""
    leaves = campaign.unmatched_exits and not campaign.audience.compiled.everybody
    return leaves or campaign.exit_rule is not None or campaign.goal is not None


def completion(
    campaign: CompiledCampaign, settled: Collection[str], message: str, settled_at: Instant
) -> Completion | None:
    """How an active enrolment ends as `message` settles at `settled_at` (campaign time), after the messages `settled`.

    It holds for users who are not deleted, while the campaign is live or draining and stands at this revision. None:
    a message is left, or it depends on the user; an evaluation tells what follows.
    """
    if asks_users(campaign):
        return None
    names = {*settled, message}
    if any(one.names.isdisjoint(names) for one in campaign.messages):
        return None
    again = campaign.again_after
    return Completion(campaign.revision, None if again is None else settled_at + millis(again))
