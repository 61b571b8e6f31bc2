"""Why a campaign is late: the most certain reason of those that were seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.decisions.lateness import Circumstances, Overdue, Owed, late, reason
from engine.domain.campaign import CampaignRecord
from engine.domain.gate import GateState, GateView, Gauge, Hold, Override
from engine.domain.lifecycle import CampaignState
from engine.domain.stuck import Stuck, StuckBy
from engine.domain.system_view import ChannelNode, Level, ProducerNode, SystemView, Verdict
from tests.support.system_views import FINE, lane, process, system_view

LIVE = CampaignRecord("c1", "shop", "winback", "continuous", CampaignState.LIVE, 1, {})
PAUSED = replace(LIVE, state=CampaignState.PAUSED, paused_reason="budget")
STUCK = replace(LIVE, stuck_by={StuckBy.SLICE: Stuck("KeyError", 1)})
REFUSED = replace(LIVE, stuck_by={StuckBy.SENDER: Stuck("530 authenticate", 1)})
MESSAGES = Overdue(Owed.DELIVERY, 1_200.0, "fast")
EVALUATIONS = Overdue(Owed.EVALUATION, 1_200.0, "fast")
NO_CLOCK = ProducerNode("clock", (), 0.0, None, Verdict(Level.FAILING, "no clock works", "tidegate clock run"))
BEHIND = ProducerNode("feed", (process("feed"),), 0.0, 120.0, FINE)
AT_LIMIT = ChannelNode("email", "smtp", {"sent": 95.0}, 100.0, FINE)
REFUSALS = ChannelNode("email", "smtp", {"retried": 9.0}, None, Verdict(Level.FAILING, "100% are refusals"))


def gate(limit: float | None = None, override: Override | None = None) -> GateView:
    return GateView(GateState(limit), override, Gauge(), 1, ())


AT_EASE = ChannelNode("email", "smtp", {"sent": 5.0}, 100.0, FINE)
QUIET = system_view(lanes=(lane(slices=0, held=0),), channels=(AT_EASE,))


@pytest.mark.parametrize(
    ("record", "overdue", "view", "word"),
    [
        (PAUSED, MESSAGES, system_view(missing=("broker",)), "paused"),
        (LIVE, MESSAGES, system_view(missing=("broker",), producers=(NO_CLOCK,)), "store"),
        (STUCK, MESSAGES, system_view(producers=(NO_CLOCK,)), "no_clock"),
        (REFUSED, MESSAGES, system_view(), "provider"),
        (STUCK, MESSAGES, system_view(gate=gate(override=Override(Hold.CLOSED, 9, "x"))), "stuck"),
        (LIVE, MESSAGES, system_view(fleets=(), producers=()), "no_fleet"),
        (LIVE, MESSAGES, system_view(gate=gate(override=Override(Hold.CLOSED, 9, "x"))), "gate"),
        (LIVE, MESSAGES, system_view(gate=gate(0.25), channels=(AT_LIMIT,)), "gate"),
        (LIVE, MESSAGES, system_view(gate=gate(3.0), channels=(AT_LIMIT,)), "rate"),
        (LIVE, EVALUATIONS, system_view(channels=(AT_LIMIT,)), "queue"),
        (LIVE, MESSAGES, system_view(channels=(REFUSALS,)), "provider"),
        (LIVE, EVALUATIONS, replace(QUIET, producers=(BEHIND,)), "feed"),
        (LIVE, MESSAGES, system_view(channels=(AT_EASE,)), "queue"),
        (LIVE, MESSAGES, QUIET, "late"),
        (LIVE, MESSAGES, replace(QUIET, gate=gate(override=Override(Hold.OPEN, 9, "x"))), "late"),
    ],
)
def test_the_most_certain_reason_is_told(record: CampaignRecord, overdue: Overdue, view: SystemView, word: str) -> None:
    found, why, remedy = reason(record, overdue, Circumstances(view, 0.25))
    assert found == word
    assert why
    assert remedy


def test_a_late_campaign_says_what_it_owes_and_for_how_long() -> None:
    found = late(PAUSED, MESSAGES, Circumstances(system_view()))
    assert (found.workspace, found.campaign, found.by) == ("shop", "winback", 1_200.0)
    assert found.why == "messages for 20m: it is paused (budget)"
