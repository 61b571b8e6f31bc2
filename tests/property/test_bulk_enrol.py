"""If all entering users get the same decision, the one decision equals the decision of each single evaluation."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine.clock import format_instant
from engine.decisions.decide import alike
from tests.support.decision_cases import DAY, NOW, Someone, campaign, evaluate, message

MESSAGES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "wait": st.sampled_from(["0s", "1d", "3d"]),
            "not_after": st.sampled_from([format_instant(NOW - 1), format_instant(NOW + DAY)]),
            "when": st.sampled_from([{"points": {"gte": 3}}, {"seen": {"older_than": "2d"}}]),
        },
    ),
    min_size=1,
    max_size=3,
)
CAMPAIGNS = st.fixed_dictionaries(
    {"kind": st.sampled_from(["one_off", "continuous"])},
    optional={
        "holdout": st.sampled_from(["0%", "40%"]),
        "audience": st.sampled_from([{"plan": "gold"}, {"all": [{"plan": "gold"}, {"seen": {"within": "3d"}}]}]),
        "goal": st.just({"points": {"gte": 5}}),
        "exit": st.just({"when": {"points": {"gte": 4}}}),
    },
)
PEOPLE = st.builds(
    Someone,
    st.fixed_dictionaries(
        {"plan": st.just("gold")},
        optional={"points": st.integers(0, 6), "seen": st.integers(NOW - 5 * DAY, NOW + DAY)},
    ),
    name=st.sampled_from([f"u{number}" for number in range(12)]),
)


@given(CAMPAIGNS, MESSAGES, st.lists(PEOPLE, min_size=1, max_size=8))
def test_a_bulk_enrol_equals_the_decision_of_each_user(
    written: dict[str, Any], messages: list[dict[str, Any]], people: list[Someone]
) -> None:
    series = [message(f"m{number}", **letter) for number, letter in enumerate(messages)]
    made = campaign(launching=True, messages=series, **written)
    candidates = made.candidates(None, NOW)
    for someone in people:
        own = evaluate(made, someone)
        held = made.in_holdout(someone.key)
        together = alike(made, NOW, holdout=held)
        row = someone.facts(made).row
        assert row is not None
        users = candidates.living([row], NOW)
        assert bool(users) or own.enters is None
        if together is not None and candidates.exact:
            assert (own == together) if users else own.enters is None


@given(PEOPLE, st.integers(0, 4 * DAY), st.sampled_from(["within", "older_than", "within_next"]))
def test_users_who_match_by_time_are_candidates_of_the_next_pass(someone: Someone, length: int, rule: str) -> None:
    made = campaign(audience={"all": [{"plan": "gold"}, {"seen": {rule: "2d"}}]}, goal={"points": {"gte": 5}})
    before, after = evaluate(made, someone, as_of=NOW - length), evaluate(made, someone)
    row = someone.facts(made).row
    assert row is not None
    if before.enters is None and after.enters is not None:
        assert made.candidates(NOW - length, NOW).living([row], NOW)
