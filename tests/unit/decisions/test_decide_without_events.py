"""An evaluation that skips reading events decides as one with all events: the row holds enough facts."""

from __future__ import annotations

from itertools import product

import pytest

from engine.campaign.compiled import Facts
from engine.decisions.decide import decide
from engine.errors import ProgrammerError
from tests.support.decision_cases import DAY, NOW, ORDER, Patience, Someone, campaign, enrolment

AUDIENCES = [
    {"event": {"name": ORDER, "within": "30d"}},
    {"none": [{"event": {"name": ORDER, "within": "30d"}}]},
    {"event": {"name": ORDER, "within": "30d", "count": {"gte": 2}}},
    {"all": [{"plan": "gold"}, {"none": [{"event": {"name": ORDER, "within": "30d"}}]}]},
    {"any": [{"plan": "gold"}, {"event": {"name": ORDER, "within": "30d"}}]},
]
PEOPLE = [
    Someone(attributes, [(ORDER, NOW - days * DAY, {}) for days in ago])
    for attributes in ({"plan": "gold"}, {"plan": "free"})
    for ago in ((), (1,), (31,), (1, 31), (1, 2), (-1,))
]
STAYS = [None, enrolment(), enrolment(outgoing="one"), enrolment(settled=[("one", NOW - 1)])]


@pytest.mark.parametrize("audience", AUDIENCES)
def test_unneeded_events_change_no_decision(audience: object) -> None:
    compiled = campaign(audience=audience)
    for user, latest in product(PEOPLE, STAYS):
        facts = user.facts(compiled)
        assert facts.row is not None
        known = facts if compiled.needs_events(facts.row, latest, NOW) else Facts(facts.row, None)
        assert decide(compiled, Patience(), known, latest, NOW) == decide(compiled, Patience(), facts, latest, NOW)


def test_events_are_not_read_if_the_row_rules_the_entry_out() -> None:
    lapsed = campaign(audience={"none": [{"event": {"name": ORDER, "within": "30d"}}]})
    row = Someone(events=[(ORDER, NOW - DAY, {})]).facts(lapsed).row
    assert row is not None
    assert not lapsed.needs_events(row, None, NOW)


def test_a_decision_that_lacks_its_events_raises() -> None:
    counted = campaign(audience={"event": {"name": ORDER, "within": "30d", "count": {"gte": 2}}})
    user = Someone(events=[(ORDER, NOW - days * DAY, {}) for days in (1, 2, 40)])
    with pytest.raises(ProgrammerError, match="events that were not read"):
        decide(counted, Patience(), Facts(user.facts(counted).row, None), None, NOW)
