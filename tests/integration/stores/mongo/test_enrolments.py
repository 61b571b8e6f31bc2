"""Enrolments on MongoDB: one document each, and every write checks the version that was read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from pymongo.database import Database

from engine.clock import Instant
from engine.decisions.decide import decide
from engine.domain.enrolment import Enrolment, EnrolmentChange, Outgoing, Settled
from engine.domain.keys import enrolment_prefix, suffix_of_user
from engine.domain.lifecycle import CampaignState, DeliveryState, EnrolmentState, ExitReason
from engine.failpoints import Failpoint, arm, done
from engine.pipeline.evaluation.evaluate import change_of
from engine.stores.mongo.enrolments import INDEXES, Enrolments
from tests.support.decision_cases import DAY, NOW, ORDER, Patience, Someone, campaign, enrolment, message
from tests.support.enrolment_history import advanced, origin_at
from tests.support.store_threads import together

PREFIX = enrolment_prefix("shop", "c1")
QUEUED = Outgoing("one", DeliveryState.QUEUED, NOW, NOW)
Documents = Database[dict[str, Any]]


@pytest.fixture
def enrolments(database: Documents) -> Enrolments:
    database.enrolments.create_indexes(list(INDEXES))
    return Enrolments(database)


def the_one(enrolments: Enrolments, name: str = "ann") -> Enrolment:
    stored = enrolments.all_of("c1", Someone(name=name).key)
    assert len(stored) == 1
    return stored[0]


def change(of: Enrolment, **more: Any) -> EnrolmentChange:
    return EnrolmentChange(of.id, of.version, of.revision, NOW, **{"due_at": None, **more})


def test_repeated_enrols_insert_one_enrolment(enrolments: Enrolments) -> None:
    assert enrolments.enter([enrolment()]) == {enrolment().id}
    assert enrolments.enter([enrolment(converted_at=NOW), enrolment(name="bob")]) == {enrolment(name="bob").id}
    assert the_one(enrolments) == enrolment()


def test_concurrent_enrol_inserts_a_user_once(enrolments: Enrolments) -> None:
    names = [f"hh-{n}" for n in range(5)]
    inserted = together(8, lambda _: enrolments.enter([enrolment(name=name) for name in names]))
    assert sorted(id_ for person in inserted for id_ in person) == sorted(enrolment(name=name).id for name in names)


def alike(names: Sequence[str]) -> list[tuple[str, str]]:
    keys = [Someone(name=name).key for name in names]
    return [(suffix_of_user(key), key) for key in keys]


def test_a_bulk_enrol_writes_what_single_inserts_write(enrolments: Enrolments, database: Documents) -> None:
    model = replace(enrolment(holdout=True, outgoing="one"), due_at=NOW, outgoing=replace(QUEUED, slice="s1"))
    names = ["ann", "bob", "a/b %c", "\u00fcmit"]
    expected = [enrolment(name=name) for name in names]
    assert enrolments.enter_alike(model, alike(names)) == {person.id for person in expected}
    written = list(database.enrolments.find())
    database.enrolments.delete_many({})
    enrolments.enter([replace(model, id=person.id, user=person.user) for person in expected])
    assert list(database.enrolments.find()) == written


def test_a_bulk_enrol_leaves_existing_enrolments_unchanged(enrolments: Enrolments) -> None:
    names = [f"hh-{n}" for n in range(20)]
    there = [enrolment(name=name, converted_at=NOW) for name in names[::2]]
    enrolments.enter(there)
    assert enrolments.enter_alike(enrolment(), alike(names)) == {enrolment(name=name).id for name in names[1::2]}
    assert enrolments.enter_alike(enrolment(), alike(names)) == set()
    assert {the_one(enrolments, name).converted_at for name in names[::2]} == {NOW}
    assert enrolments.enter_alike(enrolment(), []) == set()


def test_concurrent_bulk_enrol_inserts_each_user_once(enrolments: Enrolments) -> None:
    names = [f"hh-{n}" for n in range(50)]
    inserted = together(8, lambda _: enrolments.enter_alike(enrolment(), alike(names)))
    assert sorted(id_ for person in inserted for id_ in person) == sorted(enrolment(name=name).id for name in names)


def test_a_bulk_enrol_takes_the_previous_enrolment_off_the_due_list(enrolments: Enrolments) -> None:
    enrolments.enter(
        [replace(enrolment(ended=(ExitReason.GOAL, NOW)), due_at=NOW), replace(enrolment(name="bob"), due_at=NOW)]
    )
    enrolments.enter_alike(enrolment(entry=2), alike(["ann", "bob"]))
    assert [person.due_at for person in enrolments.all_of("c1", enrolment().user)] == [None, None]
    assert [person.due_at for person in enrolments.all_of("c1", enrolment(name="bob").user)] == [NOW, None], (
        "an active one stays due"
    )


def test_a_bulk_enrol_works_for_users_far_apart_among_many_others(enrolments: Enrolments) -> None:
    others = [f"hh-{n}" for n in range(300)]
    enrolments.enter_alike(enrolment(), alike(others))
    assert enrolments.enter_alike(enrolment(), alike(["x-1", "x-2", "hh-7"])) == {
        enrolment(name=name).id for name in ("x-1", "x-2")
    }


@pytest.mark.parametrize("many", [0, 400])
def test_users_with_enrolments_are_found_whether_near_or_far_apart(enrolments: Enrolments, many: int) -> None:
    enrolments.enter_alike(enrolment(), alike([f"hh-{n}" for n in range(many)]))
    enrolments.enter([enrolment(ended=(ExitReason.GOAL, NOW)), enrolment(entry=2), enrolment(name="bob")])
    enrolments.enter([replace(enrolment(name="eve"), id=enrolment(name="eve").id.replace("c1", "c2"), campaign="c2")])
    suffixes = sorted(suffix for suffix, _ in alike(["ann", "bob", "eve", "zoe"]))
    assert enrolments.present("shop", "c1", suffixes) == {enrolment().suffix, enrolment(name="bob").suffix}
    assert enrolments.present("shop", "c2", suffixes) == {enrolment(name="eve").suffix}
    assert enrolments.present("shop", "c1", []) == set()


def test_users_with_the_same_hash_are_distinguished(enrolments: Enrolments) -> None:
    same = [("00000000/a", "shop/00000000/a"), ("00000000/a-1", "shop/00000000/a-1"), ("00000000/z", "shop/00000000/z")]
    enrolments.enter_alike(enrolment(), same[:2])
    assert enrolments.present("shop", "c1", [suffix for suffix, _ in same]) == {"00000000/a", "00000000/a-1"}
    assert enrolments.enter_alike(enrolment(), same) == {"shop/c1/00000000/z/0001"}


def test_a_bulk_enrol_passes_its_failpoints(enrolments: Enrolments) -> None:
    arm("enter.inserted=raise@1~hh-1/,enter.reentered=raise")
    try:
        enrolments.enter_alike(enrolment(), alike(["hh-2"]))
        with pytest.raises(Failpoint):
            enrolments.enter_alike(enrolment(), alike(["hh-1"]))
        with pytest.raises(Failpoint):
            enrolments.enter_alike(enrolment(entry=2), alike(["hh-2"]))
        assert done() == {"enter.inserted", "enter.reentered"}
    finally:
        arm("")


def test_an_enrol_takes_the_previous_enrolment_off_the_due_list(enrolments: Enrolments) -> None:
    enrolments.enter(
        [replace(enrolment(ended=(ExitReason.GOAL, NOW)), due_at=NOW), replace(enrolment(name="bob"), due_at=NOW)]
    )
    enrolments.enter([enrolment(entry=2)])
    assert [person.due_at for person in enrolments.all_of("c1", enrolment().user)] == [None, None]
    assert the_one(enrolments, "bob").due_at == NOW


def test_a_decision_on_the_version_read_is_written_and_raises_the_version(enrolments: Enrolments) -> None:
    enrolments.enter([enrolment()])
    assert enrolments.advance([change(enrolment(), outgoing=QUEUED, due_at=NOW + 5)]) == 1
    assert the_one(enrolments) == replace(enrolment(), version=2, outgoing=QUEUED, due_at=NOW + 5)


def test_a_decision_on_an_older_version_changes_nothing(enrolments: Enrolments) -> None:
    enrolments.enter([enrolment()])
    enrolments.advance([change(enrolment(), outgoing=QUEUED)])
    before = the_one(enrolments)
    assert enrolments.advance([change(enrolment(), exit=ExitReason.UNMATCHED)]) == 0
    assert the_one(enrolments) == before


def test_concurrent_decisions_write_one(enrolments: Enrolments) -> None:
    enrolments.enter([enrolment()])
    reasons = [ExitReason.GOAL, ExitReason.UNMATCHED, ExitReason.INACTIVE, ExitReason.DELETED]
    written = together(8, lambda i: enrolments.advance([change(enrolment(), exit=reasons[i % 4], detail=str(i))]))
    assert sum(written) == 1
    assert the_one(enrolments).detail == str(written.index(1))
    assert the_one(enrolments).version == 2


def test_equal_decisions_are_written_together_and_different_ones_separately(enrolments: Enrolments) -> None:
    people = [enrolment(name=f"hh-{n}") for n in range(6)]
    enrolments.enter(people)
    enrolments.advance([change(people[0])])
    assert enrolments.advance([change(person, due_at=NOW + i % 2) for i, person in enumerate(people)]) == 5
    due = {person.user: person.due_at for person in enrolments.active(PREFIX, "", PREFIX + "g", 10)}
    assert [due[person.user] for person in people] == [None, NOW + 1, NOW, NOW + 1, NOW, NOW + 1]


def test_nothing_to_write_writes_nothing(enrolments: Enrolments) -> None:
    assert enrolments.advance([]) == 0
    assert enrolments.enter([]) == set()


def test_an_exit_settles_the_queued_delivery_in_the_same_write(enrolments: Enrolments) -> None:
    queued = enrolment(outgoing="one")
    enrolments.enter([queued])
    skipped = Settled("one", DeliveryState.SKIPPED, NOW, "exited")
    enrolments.advance([change(queued, exit=ExitReason.UNMATCHED, settled=skipped)])
    stored = the_one(enrolments)
    assert (stored.state, stored.reason, stored.ended_at) == (EnrolmentState.ENDED, ExitReason.UNMATCHED, NOW)
    assert (stored.outgoing, stored.settled, stored.version) == (None, (skipped,), 2)


STORIES: list[tuple[str, Enrolment, Someone, dict[str, Any], Instant]] = [
    ("sends", enrolment(), Someone(), {}, NOW),
    ("waits", enrolment(settled=[("one", NOW - DAY)]), Someone(), {}, NOW),
    ("exits", enrolment(outgoing="one"), Someone({"plan": "free"}), {"entry": {"again_after": "5d"}}, NOW),
    ("skips", enrolment(holdout=True), Someone(), {}, NOW),
    ("is cancelled", enrolment(outgoing="one"), Someone(), {"state": CampaignState.CANCELLED}, NOW),
    ("converts", enrolment(), Someone(events=[(ORDER, NOW - 5, {})]), {"goal": {"event": {"name": ORDER}}}, NOW),
    ("is too late", enrolment(), Someone(), {"messages": [message("one", not_after="2026-11-30")]}, NOW),
    ("is inactive", enrolment(), Someone(), {}, NOW + 60 * DAY),
    ("ended", replace(enrolment(ended=(ExitReason.GOAL, NOW)), due_at=NOW), Someone(deleted=True), {}, NOW + DAY),
]


@pytest.mark.parametrize("expected", STORIES, ids=[story[0] for story in STORIES])
def test_mongodb_writes_a_decision_as_the_model_of_the_tests_does(
    enrolments: Enrolments, expected: tuple[str, Enrolment, Someone, dict[str, Any], Instant]
) -> None:
    _, before, user, written, as_of = expected
    enrolments.enter([before])
    rules = campaign(**written)
    decision = decide(rules, Patience(), user.facts(rules), before, as_of)
    made = change_of(rules, origin_at(as_of), before, decision)
    assert made is not None
    assert enrolments.advance([made]) == 1
    stored = the_one(enrolments)
    assert replace(stored, outgoing=stored.outgoing and replace(stored.outgoing, slice="s1")) == replace(
        advanced(before, made), outgoing=(out := advanced(before, made).outgoing) and replace(out, slice="s1")
    )


def test_the_latest_enrolment_of_each_user_of_a_range_is_read_by_suffix(enrolments: Enrolments) -> None:
    everyone = sorted((enrolment(name=f"hh-{n}") for n in range(20)), key=lambda person: person.id)
    enrolments.enter(everyone)
    enrolments.enter([replace(person, id=person.id[:-1] + "2", entry=2) for person in everyone[:5]])
    stored = enrolments.latest("shop", "c1", everyone[2].suffix, everyone[9].suffix)
    assert list(stored) == [person.suffix for person in everyone[2:10]]
    assert [latest_.entry for latest_ in stored.values()] == [2, 2, 2, 1, 1, 1, 1, 1]


def test_the_latest_enrolments_of_named_users_are_read(enrolments: Enrolments) -> None:
    enrolments.enter([enrolment(ended=(ExitReason.GOAL, NOW)), enrolment(entry=2), enrolment(name="bob")])
    latest = enrolments.latest_of("c1", [enrolment().user, enrolment(name="eve").user])
    assert {user: person.entry for user, person in latest.items()} == {enrolment().user: 2}


def test_active_and_due_enrolments_are_read_page_by_page_in_order(enrolments: Enrolments) -> None:
    people = sorted(
        (replace(enrolment(name=f"hh-{n}"), due_at=NOW + n % 2) for n in range(10)), key=lambda person: person.id
    )
    enrolments.enter([*people, replace(enrolment(ended=(ExitReason.GOAL, NOW), name="gone"), due_at=NOW)])
    first = enrolments.active(PREFIX, "", PREFIX + "g", 4)
    rest = enrolments.active(PREFIX, first[-1].id, PREFIX + "g", 100)
    assert [item.id for item in (*first, *rest)] == [person.id for person in people]
    due = enrolments.due(PREFIX, "", PREFIX + "g", NOW, 100)
    assert {person.user for person in due} == {person.user for person in people if person.due_at == NOW} | {
        enrolment(name="gone").user
    }
    assert enrolments.due_ids("c1", NOW, 100) == [person.id for person in due]
    assert enrolments.due_ids("c1", NOW - 1, 100) == []


def test_the_probe_finds_a_campaign_with_due_enrolments(enrolments: Enrolments) -> None:
    enrolments.enter([replace(enrolment(), due_at=NOW)])
    assert enrolments.first_due_campaign(NOW - 1, []) is None
    assert enrolments.first_due_campaign(NOW, []) == "c1"
    assert enrolments.first_due_campaign(NOW, ["c1"]) is None


def test_no_enrolment_of_a_cleared_campaign_is_due(enrolments: Enrolments) -> None:
    other = replace(enrolment(name="bob"), id=enrolment(name="bob").id.replace("c1", "c2"), campaign="c2", due_at=NOW)
    enrolments.enter([replace(enrolment(), due_at=NOW), other])
    enrolments.clear_due("c1")
    assert enrolments.first_due_campaign(NOW, []) == "c2"
    assert the_one(enrolments).due_at is None


def test_a_user_can_be_made_due_in_every_campaign_but_not_over_an_attempt(enrolments: Enrolments) -> None:
    enrolments.enter([enrolment(), enrolment(name="bob", outgoing="one", attempting=True)])
    assert enrolments.make_due(enrolment().user, NOW) == 1
    assert enrolments.make_due(enrolment(name="bob").user, NOW) == 0
    assert the_one(enrolments).due_at == NOW


def test_an_enrolment_changed_by_another_write_is_reported_and_made_due(enrolments: Enrolments) -> None:
    """Bob's change is applied as requested, whoever wrote it; Ann's is not."""
    ann, bob = enrolment(), enrolment(name="bob")
    enrolments.enter([ann, bob])
    enrolments.advance([change(ann, due_at=NOW + 7), change(bob, due_at=NOW + 9)])
    late = [change(ann, due_at=NOW + 8), change(bob, due_at=NOW + 9)]
    assert enrolments.advance(late) == 0
    assert enrolments.overtaken(late) == [ann.id]
    before = the_one(enrolments)
    assert enrolments.wake([ann.id], NOW) == 1
    assert (the_one(enrolments).due_at, the_one(enrolments).version) == (NOW, before.version + 1)
    assert enrolments.advance([change(before, due_at=None)]) == 0, "whoever read it before does not undo it"


def test_ended_and_attempting_enrolments_are_not_made_due(enrolments: Enrolments) -> None:
    left = enrolment(ended=(ExitReason.GOAL, NOW))
    trying = enrolment(name="bob", outgoing="one", attempting=True)
    enrolments.enter([left, trying])
    assert enrolments.wake([left.id, trying.id], NOW) == 0
    assert enrolments.wake([], NOW) == 0


def test_a_campaign_has_open_enrolments_until_the_last_one_ended(enrolments: Enrolments) -> None:
    assert not enrolments.has_open("c1")
    enrolments.enter([enrolment(), enrolment(name="bob", ended=(ExitReason.GOAL, NOW))])
    assert enrolments.has_open("c1")
    enrolments.advance([change(enrolment(), exit=ExitReason.COMPLETED)])
    assert not enrolments.has_open("c1")


@pytest.mark.parametrize("ended", [None, (ExitReason.COMPLETED, NOW)])
def test_a_campaign_is_open_while_a_delivery_is_unsettled(
    enrolments: Enrolments, ended: tuple[ExitReason, int] | None
) -> None:
    """An ended enrolment too: a replayed delivery is sent after all."""
    enrolments.enter([enrolment(outgoing="one", ended=ended)])
    assert enrolments.has_open("c1")
    assert not enrolments.has_open("c2")


def test_an_enrolment_is_idle_only_without_an_unsettled_delivery(enrolments: Enrolments) -> None:
    enrolments.enter([enrolment()])
    assert enrolments.idle_ids("c1", NOW, 10) == [enrolment().id]
    enrolments.advance([change(enrolment(), outgoing=QUEUED)])
    assert enrolments.idle_ids("c1", NOW + 9, 10) == []
    assert enrolments.has_open("c1")


def test_all_enrolments_of_a_user_are_listed_by_campaign_and_entry(enrolments: Enrolments) -> None:
    other = replace(enrolment(), id=enrolment().id.replace("c1", "c0"), campaign="c0")
    enrolments.enter([enrolment(entry=2), enrolment(ended=(ExitReason.GOAL, NOW)), other])
    assert [(person.campaign, person.entry) for person in enrolments.stays_of(enrolment().user)] == [
        ("c0", 1),
        ("c1", 1),
        ("c1", 2),
    ]
