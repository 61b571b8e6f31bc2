"""Counts are computed from the enrolments: both identities hold for any enrolments, and the aggregation counts them."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

from pymongo.database import Database

from engine.domain.counts import CountedPage, merged_counts, merged_failures
from engine.domain.enrolment import Enrolment, Settled
from engine.domain.keys import enrolment_prefix
from engine.domain.lifecycle import DeliveryState, ExitReason, SkipReason
from engine.stores.mongo.campaign_counts import Counts
from engine.stores.mongo.enrolments import Enrolments
from tests.support.decision_cases import NOW, enrolment

PREFIX = enrolment_prefix("shop", "c1")
ENDS = [DeliveryState.SENT, DeliveryState.FAILED, DeliveryState.UNKNOWN, DeliveryState.SKIPPED]


def random_enrolment(rnd: random.Random, name: str, entry: int) -> Enrolment:
    ended = rnd.random() < 0.5
    settled = []
    for message in ("one", "two")[: rnd.randrange(3)]:
        state = rnd.choice(ENDS)
        reason = {DeliveryState.SKIPPED: rnd.choice(list(SkipReason)).value, DeliveryState.FAILED: "smtp_550"}.get(
            state
        )
        settled.append(Settled(message, state, NOW, reason, 1))
    going = rnd.choice([None, "queued", "attempting"]) if not ended else None
    drawn = enrolment(
        name=name,
        entry=entry,
        ended=(rnd.choice(list(ExitReason)), NOW) if ended else None,
        outgoing="three" if going else None,
        attempting=going == "attempting",
        holdout=rnd.random() < 0.2,
        converted_at=NOW if rnd.random() < 0.3 else None,
    )
    return replace(drawn, settled=tuple(settled))


def test_counts_equal_a_count_by_hand_and_both_identities_hold(
    database: Database[dict[str, Any]],
) -> None:
    rnd = random.Random(7)
    enrolments = [random_enrolment(rnd, f"hh-{n}", 1 + n % 3) for n in range(300)]
    Enrolments(database).enter(enrolments)
    counts = Counts(database).of(PREFIX)
    assert counts.entered == counts.active + sum(counts.exited.values()) == 300
    assert counts.active == sum(person.active for person in enrolments)
    assert counts.exited == dict(Counter(person.reason.value for person in enrolments if person.reason))
    assert counts.holdout == sum(person.holdout for person in enrolments)
    assert counts.converted == sum(person.converted_at is not None for person in enrolments)
    assert counts.converted_holdout == sum(person.holdout and person.converted_at is not None for person in enrolments)
    by_hand: dict[str, Counter[str]] = {"one": Counter(), "two": Counter(), "three": Counter()}
    for person in enrolments:
        for end in person.settled:
            skipped = end.state is DeliveryState.SKIPPED
            by_hand[end.message][f"skipped({end.reason})" if skipped else end.state.value] += 1
        if person.outgoing:
            by_hand[person.outgoing.message][person.outgoing.state.value] += 1
    assert {name: dict(message.states) for name, message in counts.messages.items()} == by_hand
    assert all(message.decided == sum(message.states.values()) for message in counts.messages.values())


def test_a_campaign_without_enrolments_counts_nothing(database: Database[dict[str, Any]]) -> None:
    counts = Counts(database).of(PREFIX)
    assert (counts.entered, counts.active, counts.exited, counts.messages) == (0, 0, {}, {})


def test_enrolments_of_other_campaigns_and_workspaces_do_not_count(database: Database[dict[str, Any]]) -> None:
    mine = enrolment()
    others = [replace(mine, id=mine.id.replace("/c1/", f"/{uid}/"), campaign=uid) for uid in ("c", "c10", "c2", "b")]
    others.append(replace(mine, id=mine.id.replace("shop/", "shop2/")))
    Enrolments(database).enter([mine, *others])
    assert Counts(database).of(PREFIX).entered == 1


def test_pages_add_up_to_one_count_of_everything(database: Database[dict[str, Any]]) -> None:
    rnd = random.Random(8)
    Enrolments(database).enter([random_enrolment(rnd, f"hh-{n}", 1 + n % 3) for n in range(300)])
    Enrolments(database).enter([replace(random_enrolment(rnd, "hh-1", 1), id="shop/c2/00000000/hh-1/1", campaign="c2")])
    counts = Counts(database)
    for limit in (1, 7, 100, 300, 1_000):
        pages: list[CountedPage] = [counts.page(PREFIX, "", limit)]
        while pages[-1].last is not None:
            pages.append(counts.page(PREFIX, pages[-1].last, limit))
        assert merged_counts(page.counts for page in pages) == counts.of(PREFIX), limit
        failures = merged_failures(failure for page in pages for failure in page.failures)
        assert list(failures) == counts.failures(PREFIX), limit
    assert counts.page(PREFIX, "", 1_000).counts.faults() == ()
