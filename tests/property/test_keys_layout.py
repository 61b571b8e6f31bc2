"""The layout by hash under stress: any id, any number of ranges."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from engine.domain.keys import (
    HASH_SPACE,
    HIGHEST,
    arm,
    cut,
    cut_range,
    enrolment_id,
    enrolment_ids,
    enrolment_prefix,
    escape,
    hash_prefix,
    layout_hash,
    position_of,
    suffix_of_enrolment,
    suffix_of_user,
    unescape,
    user_id_of,
    user_key,
    user_suffix,
)

IDS = st.text(st.characters(codec="utf-8"), max_size=40)


@given(IDS)
def test_any_id_round_trips_through_a_key(user_id: str) -> None:
    assert unescape(escape(user_id)) == user_id
    assert user_id_of(user_key("w", user_id)) == user_id


@given(IDS)
def test_an_escaped_id_is_one_printable_part_of_a_key(user_id: str) -> None:
    escaped = escape(user_id)
    assert "/" not in escaped
    assert escaped.isascii()
    assert escaped.isprintable()


@given(IDS, IDS)
def test_two_ids_never_share_a_key(one: str, other: str) -> None:
    assert (user_key("w", one) == user_key("w", other)) is (one == other)


@given(IDS, st.integers(1, 9_999))
def test_an_enrolment_id_holds_its_user_and_its_campaign(user_id: str, entry: int) -> None:
    suffix = user_suffix(user_id)
    enrolment = enrolment_id("w", "c", suffix, entry)
    assert enrolment_ids("w", "c", [suffix], entry) == [enrolment]
    assert suffix_of_enrolment(enrolment) == suffix == suffix_of_user(user_key("w", user_id))
    prefix = enrolment_prefix("w", "c")
    assert prefix + hash_prefix(0) <= enrolment < prefix + HIGHEST


@given(st.integers(1, 5_000))
def test_a_cut_covers_the_space_exactly_in_nearly_equal_ranges(number: int) -> None:
    pieces = cut(number)
    assert len(pieces) == number
    assert (pieces[0][0], pieces[-1][1]) == (hash_prefix(0), HIGHEST)
    assert all(before[1] == after[0] for before, after in pairwise(pieces))
    edges = [int(first, 16) for first, _ in pieces] + [HASH_SPACE]
    widths = [after - before for before, after in pairwise(edges)]
    assert max(widths) - min(widths) <= 1


@given(IDS, st.integers(1, 300))
def test_every_user_falls_into_exactly_one_range(user_id: str, number: int) -> None:
    suffix = user_suffix(user_id)
    homes = [place for place, (first, until) in enumerate(cut(number)) if first <= suffix < until]
    edges = [HASH_SPACE * i // number for i in range(number + 1)]
    assert homes == [next(i for i in range(number) if int(layout_hash(user_id), 16) < edges[i + 1])]


@given(st.text(min_size=1, max_size=12), st.sampled_from(["holdout", "variant"]), st.integers(0, 10**9))
def test_arms_are_uniform_and_independent_of_the_key_layout(campaign: str, purpose: str, seed: int) -> None:
    """Draw 1,000 users: the bounds are five standard deviations, which chance exceeds once in two million draws."""
    people = [f"{seed}-{n}" for n in range(1_000)]
    arms = [arm(campaign, purpose, name) for name in people]
    assert all(0 <= share < 1 for share in arms)
    assert abs(sum(arms) / 1_000 - 0.5) < 0.046
    low = [item for item, name in zip(arms, people, strict=True) if int(layout_hash(name), 16) < HASH_SPACE // 2]
    assert abs(sum(share < 0.5 for share in low) / len(low) - 0.5) < 0.13


BOUNDS = st.one_of(st.integers(0, HASH_SPACE).map(hash_prefix), IDS.map(user_suffix), st.just("00"), st.just("ff0"))


@given(BOUNDS, BOUNDS, st.integers(1, 50))
def test_a_range_is_cut_into_adjacent_ranges_that_cover_it(one: str, other: str, pieces: int) -> None:
    first, until = sorted((one, other))
    if first == until:
        return
    ranges = cut_range(first, until, pieces)
    assert (ranges[0][0], ranges[-1][1]) == (first, until)
    assert all(before[1] == after[0] for before, after in pairwise(ranges))
    assert all(low < high for low, high in ranges)
    assert len(ranges) <= pieces


@given(IDS)
def test_the_position_of_a_suffix_is_its_hash(user_id: str) -> None:
    assert hash_prefix(position_of(user_suffix(user_id))) == layout_hash(user_id)
    assert position_of(HIGHEST) == HASH_SPACE
