"""Without any service: the second judge agrees, `next_flip` is never too late, and goals see only the facts given."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.predicate.compiled import compile_predicate
from engine.predicate.parse import parse_predicate
from tests.conformance.population import DAY, NOW, catalogue_of
from tests.conformance.walk import walk
from tests.property.predicate_strategies import LENGTHS, TIMES, compiled, events, node_of, people, predicates

CATALOGUE = catalogue_of("w")
PEOPLE = people(7, 200)
ROWS = {name: CATALOGUE.row(person.document(CATALOGUE, name)) for name, person in PEOPLE.items()}
UNITS = {"1ms": 1, "1s": 1000, "1d": DAY, "2d": 2 * DAY, "30d": 30 * DAY}

names = st.lists(st.sampled_from(sorted(PEOPLE)), min_size=1, max_size=20, unique=True)
searching = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))


def critical(name: str) -> list[int]:
    """Return the moments at which time alone can change anything about this person, and one millisecond around them."""
    person = PEOPLE[name]
    instants = [t for _, t, _ in person.events]
    instants += [v for v in person.a.values() if isinstance(v, int) and not isinstance(v, bool) and abs(v) < 1 << 50]
    lengths = [0, *(sign * UNITS[text] for text in LENGTHS for sign in (1, -1))]
    return sorted({t + length + nudge for t in instants for length in lengths for nudge in (-1, 0)})


@searching
@given(plain=predicates(), chosen=names, as_of=st.sampled_from(TIMES))
def test_the_next_flip_is_never_too_late(plain: dict[str, Any], chosen: list[str], as_of: int) -> None:
    predicate = compiled(plain, CATALOGUE)
    for name in chosen:
        row, facts = ROWS[name], PEOPLE[name].facts(predicate)
        now = predicate.matches(row, facts, as_of)
        for given_facts in (facts, None):
            flip = predicate.next_flip(row, given_facts, as_of)
            assert flip is None or flip > as_of
            for later in critical(name):
                if as_of < later and (flip is None or later < flip):
                    assert predicate.matches(row, facts, later) is now, f"{name} changed at {later}, not at {flip}"


@searching
@given(plain=predicates(), chosen=names, as_of=st.sampled_from(TIMES))
def test_a_certain_maybe_equals_the_exact_answer(plain: dict[str, Any], chosen: list[str], as_of: int) -> None:
    predicate = compiled(plain, CATALOGUE)
    for name in chosen:
        person = PEOPLE[name]
        expected = walk(plain, person.document(CATALOGUE, name), person.events, as_of)
        assert predicate.matches(ROWS[name], person.facts(predicate), as_of) is expected
        assert predicate.maybe(ROWS[name], as_of) in (None, expected)


@searching
@given(plain=predicates(), chosen=names)
def test_an_explanation_has_a_failing_leaf_exactly_for_unmatched_users(
    plain: dict[str, Any], chosen: list[str]
) -> None:
    predicate = compiled(plain, CATALOGUE)
    for name in chosen:
        facts = PEOPLE[name].facts(predicate)
        explanation = predicate.explain(ROWS[name], facts, NOW)
        if not predicate.matches(ROWS[name], facts, NOW):
            assert any(leaf.failed for leaf in explanation)
        else:
            assert any(not leaf.failed for leaf in explanation)


@searching
@given(plain=events(), chosen=names, since=st.sampled_from(TIMES))
def test_without_summaries_only_the_given_facts_count(plain: dict[str, Any], chosen: list[str], since: int) -> None:
    tree = parse_predicate(node_of(plain), CATALOGUE)
    predicate = compile_predicate(tree, CATALOGUE, summaries=False)
    for name in chosen:
        person = PEOPLE[name]
        kept = [(event, t, p) for event, t, p in person.events if t > since]
        facts = [[(t, p) for event, t, p in kept if event == query.name] for query in predicate.event_queries]
        expected = walk(plain, person.document(CATALOGUE, name), kept, NOW)
        assert predicate.matches(ROWS[name], facts, NOW) is expected
        assert predicate.maybe(ROWS[name], NOW) in (None, expected)
