"""Deliveries on MongoDB are marked once, and settled once by the holder of the token."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pymongo.database import Database

from engine.domain.enrolment import Enrolment, EnrolmentChange, Settled
from engine.domain.keys import enrolment_prefix
from engine.domain.lifecycle import DeliveryState, ExitReason
from engine.domain.settling import Completion, PutBack, Settling, Unsent
from engine.stores.mongo.deliveries import Deliveries
from engine.stores.mongo.enrolments import INDEXES, Enrolments
from tests.support.decision_cases import DAY, NOW, enrolment
from tests.support.enrolment_history import completed_as, marked
from tests.support.store_threads import together

PREFIX = enrolment_prefix("shop", "c1")
Documents = Database[dict[str, Any]]
SENT = Settled("one", DeliveryState.SENT, NOW + 7, None, 1)


@pytest.fixture
def enrolments(database: Documents) -> Enrolments:
    database.enrolments.create_indexes(list(INDEXES))
    return Enrolments(database)


@pytest.fixture
def deliveries(database: Documents, enrolments: Enrolments) -> Deliveries:
    return Deliveries(database)


@pytest.fixture
def queued(enrolments: Enrolments) -> Enrolment:
    enrolments.enter([enrolment(outgoing="one")])
    return enrolment(outgoing="one")


def now_of(enrolments: Enrolments, name: str = "ann") -> Enrolment:
    return enrolments.all_of("c1", enrolment(name=name).user)[-1]


def to_send(deliveries: Deliveries, now: int = NOW) -> list[str]:
    return [delivery.id for delivery in deliveries.outgoing(PREFIX, "", PREFIX + "g", now, 100)]


def test_a_mark_makes_a_delivery_attempting_under_a_token(
    deliveries: Deliveries, enrolments: Enrolments, queued: Enrolment
) -> None:
    assert deliveries.settle_and_mark([], [queued], "t1") == {queued.id}
    out = now_of(enrolments).outgoing
    assert out is not None
    assert (out.state, out.token, out.attempts) == (DeliveryState.ATTEMPTING, "t1", 0)
    assert now_of(enrolments).version == queued.version + 1


def test_a_marked_delivery_is_not_marked_again(
    deliveries: Deliveries, enrolments: Enrolments, queued: Enrolment
) -> None:
    deliveries.settle_and_mark([], [queued], "t1")
    assert deliveries.settle_and_mark([], [queued], "t2") == set()
    assert deliveries.settle_and_mark([], [now_of(enrolments)], "t2") == set()


def test_concurrent_marks_give_a_delivery_to_one_sender(deliveries: Deliveries, queued: Enrolment) -> None:
    marked = together(12, lambda i: deliveries.settle_and_mark([], [queued], f"t{i}"))
    assert sorted(map(len, marked)) == [0] * 11 + [1]


def test_a_window_that_overlaps_another_gets_only_its_own_marks(deliveries: Deliveries, enrolments: Enrolments) -> None:
    people = [enrolment(name=f"hh-{n}", outgoing="one") for n in range(10)]
    enrolments.enter(people)
    windows = together(5, lambda i: deliveries.settle_and_mark([], people[i : i + 6], f"t{i}"))
    marked = [id_ for window in windows for id_ in window]
    assert sorted(marked) == sorted(person.id for person in people)


def test_a_delivery_of_an_exited_enrolment_is_not_marked(
    deliveries: Deliveries, enrolments: Enrolments, queued: Enrolment
) -> None:
    enrolments.advance([EnrolmentChange(queued.id, queued.version, 1, NOW, None, ExitReason.UNMATCHED)])
    assert deliveries.settle_and_mark([], [queued], "t1") == set()


def test_a_settled_delivery_makes_its_enrolment_due(
    deliveries: Deliveries, enrolments: Enrolments, queued: Enrolment, database: Documents
) -> None:
    deliveries.settle_and_mark([], [queued], "t1")
    assert deliveries.settle([Settling([queued.id], "t1", SENT)]) == 1
    delivery = now_of(enrolments)
    assert (delivery.outgoing, delivery.settled) == (None, (SENT,))
    assert (delivery.settled_at, delivery.due_at, delivery.idle_since) == (NOW + 7, NOW + 7, NOW + 7)
    raw = database.enrolments.find_one({"_id": queued.id})
    assert raw is not None
    assert raw["idle_since"] == NOW + 7


@pytest.mark.parametrize("token", ["t2", ""])
def test_only_the_token_that_marked_it_settles_it(
    deliveries: Deliveries, enrolments: Enrolments, queued: Enrolment, token: str
) -> None:
    deliveries.settle_and_mark([], [queued], "t1")
    assert deliveries.settle([Settling([queued.id], token, SENT)]) == 0
    assert deliveries.settle([PutBack([queued.id], token, timedelta(0), NOW)]) == 0
    assert now_of(enrolments).settled == ()


def test_a_queued_delivery_cannot_settle_as_sent(deliveries: Deliveries, queued: Enrolment) -> None:
    assert deliveries.settle([Settling([queued.id], "t1", SENT)]) == 0


@pytest.mark.parametrize("due_at", [None, NOW + DAY])
@pytest.mark.parametrize("sent", [True, False])
def test_a_completion_ends_the_enrolment_in_the_settling_write_as_the_model_does(
    deliveries: Deliveries, enrolments: Enrolments, due_at: int | None, sent: bool
) -> None:
    before = replace(enrolment(outgoing="one"), due_at=NOW)
    enrolments.enter([before])
    ends = Completion(7, due_at)
    if sent:
        deliveries.settle_and_mark([], [before], "t1")
        assert deliveries.settle([Settling([before.id], "t1", SENT, ends)]) == 1
        expected = completed_as(marked(before), DeliveryState.SENT, NOW + 7, ends)
    else:
        skipped = Settled("one", DeliveryState.SKIPPED, NOW + 7, "suppressed")
        assert deliveries.skip([Unsent(before, skipped, ends)]) == 1
        expected = completed_as(before, DeliveryState.SKIPPED, NOW + 7, ends, "suppressed")
    assert now_of(enrolments) == expected
    assert not enrolments.has_open("c1")
    assert not deliveries.has_outgoing(None, None)


def test_a_delivery_holds_earlier_settlements_and_whether_its_enrolment_continues(
    deliveries: Deliveries, enrolments: Enrolments
) -> None:
    went = replace(enrolment(name="bob", outgoing="one", ended=(ExitReason.COMPLETED, NOW)), settled=())
    enrolments.enter([enrolment(outgoing="two", settled=[("one", NOW - 5)]), went])
    read = {
        delivery.user: (delivery.settled, delivery.active)
        for delivery in deliveries.outgoing(PREFIX, "", PREFIX + "g", NOW, 100)
    }
    assert read == {enrolment().user: (("one",), True), went.user: ((), False)}


def test_concurrent_settlements_write_one_end(
    deliveries: Deliveries, enrolments: Enrolments, queued: Enrolment
) -> None:
    deliveries.settle_and_mark([], [queued], "t1")
    ends = [SENT, replace(SENT, state=DeliveryState.UNKNOWN)]
    written = together(8, lambda i: deliveries.settle([Settling([queued.id], "t1", ends[i % 2])]))
    assert sum(written) == 1
    assert now_of(enrolments).settled == (ends[written.index(1) % 2],)


def test_equal_ends_are_written_together_and_each_is_reported(deliveries: Deliveries, enrolments: Enrolments) -> None:
    people = [enrolment(name=f"hh-{n}", outgoing="one") for n in range(6)]
    enrolments.enter(people)
    deliveries.settle_and_mark([], people, "t1")
    failed = replace(SENT, state=DeliveryState.FAILED, reason="smtp_550")
    ends = [Settling([person.id], "t1", SENT if i % 2 else failed) for i, person in enumerate(people)]
    assert deliveries.settle(ends) == 6
    assert [now_of(enrolments, f"hh-{i}").settled[0].state.value for i in range(6)] == ["failed", "sent"] * 3


def test_a_skip_settles_a_queued_delivery_at_the_version_read(
    deliveries: Deliveries, enrolments: Enrolments, queued: Enrolment
) -> None:
    suppressed = Settled("one", DeliveryState.SKIPPED, NOW, "suppressed")
    assert deliveries.skip([Unsent(replace(queued, version=99), suppressed)]) == 0
    assert deliveries.skip([Unsent(queued, suppressed)]) == 1
    assert deliveries.skip([Unsent(queued, suppressed)]) == 0
    assert [delivery.reason for delivery in now_of(enrolments).settled] == ["suppressed"]


def test_a_skip_never_settles_an_attempting_delivery(
    deliveries: Deliveries, enrolments: Enrolments, queued: Enrolment
) -> None:
    deliveries.settle_and_mark([], [queued], "t1")
    end = Settled("one", DeliveryState.SKIPPED, NOW, "suppressed")
    assert deliveries.skip([Unsent(now_of(enrolments), end)]) == 0


def test_a_retry_waits_by_mongodbs_clock_and_its_enrolment_is_due_meanwhile(
    deliveries: Deliveries, enrolments: Enrolments, queued: Enrolment
) -> None:
    deliveries.settle_and_mark([], [queued], "t1")
    assert deliveries.settle([PutBack([queued.id], "t1", timedelta(hours=1), NOW)]) == 1
    delivery = now_of(enrolments)
    assert delivery.outgoing is not None
    assert (delivery.outgoing.state, delivery.outgoing.token, delivery.outgoing.attempts) == (
        DeliveryState.QUEUED,
        None,
        1,
    )
    assert delivery.due_at == NOW
    assert to_send(deliveries) == []
    assert deliveries.first_campaign(NOW, []) is None
    assert deliveries.has_outgoing(["c1"], NOW)


def test_a_due_retry_is_sent_and_knows_its_attempts(
    deliveries: Deliveries, enrolments: Enrolments, queued: Enrolment
) -> None:
    for attempt in (1, 2):
        deliveries.settle_and_mark([], [now_of(enrolments)], f"t{attempt}")
        assert deliveries.settle([PutBack([queued.id], f"t{attempt}", timedelta(seconds=-1), NOW)]) == 1
        (waiting,) = deliveries.outgoing(PREFIX, "", PREFIX + "g", NOW, 100)
        assert (waiting.id, waiting.attempts, waiting.token) == (queued.id, attempt, None)


def test_a_delivery_postponed_in_campaign_time_is_not_sent_before_and_holds_nothing_open(
    deliveries: Deliveries, enrolments: Enrolments
) -> None:
    later = enrolment(outgoing="one")
    assert later.outgoing is not None
    enrolments.enter([replace(later, outgoing=replace(later.outgoing, not_before=NOW + DAY))])
    assert to_send(deliveries) == []
    assert not deliveries.has_outgoing(["c1"], NOW)
    assert deliveries.has_outgoing(["c1"], None)
    assert to_send(deliveries, NOW + DAY) == [later.id]
    assert deliveries.has_outgoing(None, NOW + DAY)
    assert not deliveries.has_outgoing(None, NOW + DAY, leave_out=["c1"])


def test_deliveries_are_read_page_by_page_in_order(deliveries: Deliveries, enrolments: Enrolments) -> None:
    people = sorted((enrolment(name=f"hh-{n}", outgoing="one") for n in range(10)), key=lambda person: person.id)
    enrolments.enter(people)
    first = deliveries.outgoing(PREFIX, "", PREFIX + "g", NOW, 4)
    rest = deliveries.outgoing(PREFIX, first[-1].id, PREFIX + "g", NOW, 100)
    assert [item.id for item in (*first, *rest)] == [person.id for person in people]


def test_attempting_deliveries_are_read_with_their_tokens(deliveries: Deliveries, enrolments: Enrolments) -> None:
    people = sorted((enrolment(name=f"hh-{n}", outgoing="one") for n in range(10)), key=lambda person: person.id)
    enrolments.enter(people)
    deliveries.settle_and_mark([], people[2:5], "t1")
    read = deliveries.outgoing(PREFIX, "", PREFIX + "g", NOW, 100)
    assert [delivery.token for delivery in read] == [None, None, "t1", "t1", "t1", *[None] * 5]


def test_one_write_settles_a_window_requeues_retries_and_marks_the_next(
    deliveries: Deliveries, enrolments: Enrolments
) -> None:
    people = sorted((enrolment(name=f"hh-{n}", outgoing="one") for n in range(6)), key=lambda person: person.id)
    enrolments.enter(people)
    deliveries.settle_and_mark([], people[:4], "t1")
    ends = [
        Settling([person.id for person in people[:3]], "t1", SENT),
        PutBack([people[3].id], "t1", timedelta(hours=1), NOW),
    ]
    assert deliveries.settle_and_mark(ends, people[4:], "t2") == {person.id for person in people[4:]}
    waiting = deliveries.outgoing(PREFIX, "", PREFIX + "g", NOW, 10)
    assert [(delivery.id, delivery.token) for delivery in waiting] == [(person.id, "t2") for person in people[4:]]
    assert [len(enrolments.all_of("c1", person.user)[0].settled) for person in people] == [1, 1, 1, 0, 0, 0]
    assert enrolments.all_of("c1", people[3].user)[0].due_at == NOW


def test_a_window_after_a_recovery_by_others_gets_only_its_own_marks(
    deliveries: Deliveries, enrolments: Enrolments
) -> None:
    people = [enrolment(name=f"hh-{n}", outgoing="one") for n in range(4)]
    enrolments.enter(people)
    deliveries.settle_and_mark([], people[:2], "t1")
    ours = [Settling([person.id for person in people[:2]], "t1", SENT)]
    assert deliveries.settle(ours) == 2
    enrolments.advance([EnrolmentChange(people[2].id, 1, 1, NOW, None, ExitReason.UNMATCHED)])
    assert deliveries.settle_and_mark(ours, people[2:], "t2") == {people[3].id}


def test_the_probes_find_a_campaign_with_unsettled_deliveries(deliveries: Deliveries, queued: Enrolment) -> None:
    for _ in ("queued", "attempting"):
        assert deliveries.first_campaign(NOW, []) == "c1"
        assert deliveries.first_campaign(NOW, ["c1"]) is None
        assert deliveries.first_campaign(NOW - 2 * DAY, []) is None
        assert deliveries.has_outgoing(["c1"], NOW)
        assert not deliveries.has_outgoing(["c2"], NOW)
        deliveries.settle_and_mark([], [queued], "t1")


def failed(name: str, *, ended: tuple[ExitReason, int] | None = None, outgoing: str | None = None) -> Enrolment:
    end = Settled("one", DeliveryState.FAILED, NOW - 5, "smtp_550", 3)
    return replace(enrolment(name=name, ended=ended, outgoing=outgoing), settled=(end,), settled_at=NOW - 5)


def test_a_replayed_delivery_is_queued_under_its_name_and_leaves_the_settled(
    deliveries: Deliveries, enrolments: Enrolments
) -> None:
    enrolments.enter([failed("ann"), failed("bob", outgoing="two"), enrolment(name="eve", settled=[("one", NOW)])])
    assert deliveries.replay_failed(PREFIX, None, NOW) == 1
    delivery = now_of(enrolments)
    assert delivery.outgoing is not None
    assert (delivery.outgoing.message, delivery.outgoing.state, delivery.settled) == ("one", DeliveryState.QUEUED, ())
    assert deliveries.replay_failed(PREFIX, None, NOW) == 0


def test_a_replay_of_one_message_leaves_other_messages(deliveries: Deliveries, enrolments: Enrolments) -> None:
    enrolments.enter([failed("ann")])
    assert deliveries.replay_failed(PREFIX, "two", NOW) == 0
    assert deliveries.replay_failed(PREFIX, "one", NOW) == 1


def test_concurrent_replays_queue_a_delivery_once(deliveries: Deliveries, enrolments: Enrolments) -> None:
    enrolments.enter([failed(f"hh-{n}") for n in range(5)])
    assert sum(together(6, lambda _: deliveries.replay_failed(PREFIX, None, NOW))) == 5
