"""Document keys: one split by hash serves users, enrolments, events and lists."""

from __future__ import annotations

import pytest

from engine.domain.keys import (
    HASH_SPACE,
    HIGHEST,
    arm,
    cut,
    delivery_key,
    enrolment_id,
    enrolment_prefix,
    escape,
    hash_prefix,
    layout_hash,
    suffix_of_enrolment,
    suffix_of_user,
    unescape,
    user_id_of,
    user_key,
    user_suffix,
)


def test_the_keys_of_one_user_share_one_suffix() -> None:
    suffix = user_suffix("hh-1")
    assert user_key("shop", "hh-1") == f"shop/{suffix}"
    enrolment = enrolment_id("shop", "c1", suffix, 7)
    assert enrolment == f"shop/c1/{suffix}/0007"
    assert enrolment.startswith(enrolment_prefix("shop", "c1"))
    assert suffix_of_user(user_key("shop", "hh-1")) == suffix_of_enrolment(enrolment) == suffix
    assert delivery_key(enrolment, "one") == f"{enrolment}/one"


@pytest.mark.parametrize(
    ("user_id", "escaped"),
    [("a/b", "a%2Fb"), ("50%", "50%25"), ("a\nb", "a%0Ab"), ("é", "%C3%A9"), ("", ""), ("x@y.org", "x@y.org")],
)
def test_special_characters_in_keys_are_escaped_and_others_stay_readable(user_id: str, escaped: str) -> None:
    assert escape(user_id) == escaped
    assert unescape(escaped) == user_id


def test_a_key_is_the_same_on_every_machine_and_in_every_version() -> None:
    assert layout_hash("hh-1") == "5ff107f6"
    assert user_key("shop", "hh-1") == "shop/5ff107f6/hh-1"
    assert arm("c1", "holdout", "hh-1") == pytest.approx(0.48989509305899276)


def test_enrolment_ids_sort_by_user_and_entry() -> None:
    suffix = user_suffix("hh-1")
    ids = [enrolment_id("shop", "c1", suffix, entry) for entry in (1, 2, 10, 999, 1000)]
    assert sorted(ids) == ids


def test_the_hash_space_ends_above_every_suffix() -> None:
    assert hash_prefix(0) == "00000000"
    assert hash_prefix(HASH_SPACE - 1) == "ffffffff"
    assert hash_prefix(HASH_SPACE) == HIGHEST > "ffffffff/\U0010ffff"


def test_one_range_is_the_whole_space() -> None:
    assert cut(1) == [("00000000", HIGHEST)]


def test_arms_of_two_purposes_or_campaigns_are_independent() -> None:
    people = [str(n) for n in range(2_000)]
    for item, other in ((("c1", "holdout"), ("c1", "variant")), (("c1", "holdout"), ("c2", "holdout"))):
        both = sum(arm(*item, name) < 0.5 and arm(*other, name) < 0.5 for name in people)
        assert 400 < both < 600


def test_a_user_id_round_trips_through_a_key() -> None:
    assert user_id_of(user_key("shop", "a/b%c")) == "a/b%c"
