"""Sequences of decisions from entry to exit, with correct counts after each step."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from engine.domain.enrolment import Settled
from engine.domain.lifecycle import CampaignState, DeliveryState, ExitReason, SkipReason, StayState
from engine.pipeline.evaluation.evaluate import change_of
from tests.support.decision_cases import DAY, GOLD, HOUR, NOW, ORDER, Someone, campaign, look, message
from tests.support.enrolment_history import Life, advanced, identities_hold, marked, piece_at, put_back

GONE = Someone({"plan": "free"})


def ends(life: Life) -> list[tuple[str, str | None]]:
    assert life.latest is not None
    return [(one.message, one.reason or one.state.value) for one in life.latest.settled]


def story(
    days: int = 30, *, step: int = HOUR, user: Someone | None = None, **written: Any
) -> tuple[Life, list[tuple[str, int]]]:
    """Evaluate each hour; return the life and the sent messages, as (message, hours after the start)."""
    life = Life(campaign(**written), user or Someone())
    sent: list[tuple[str, int]] = []
    for as_of in range(NOW, NOW + days * DAY + 1, step):
        life.settle(as_of)
        while (name := life.deliver(as_of)) is not None:
            sent.append((name, (as_of - NOW) // HOUR))
            life.settle(as_of)
        assert identities_hold(life.enrolments)
    return life, sent


def test_a_series_is_sent_in_order_with_its_waits_and_ends_completed() -> None:
    life, sent = story()
    assert sent == [("one", 0), ("two", 48)]
    assert [(enrolment.reason, enrolment.ended_at) for enrolment in life.enrolments] == [
        (ExitReason.COMPLETED, NOW + 2 * DAY)
    ]


def test_due_times_alone_lead_an_enrolment_to_its_end() -> None:
    """No pass visits the user: each evaluation happens at the due time that the previous one set."""
    life = Life(campaign(messages=[message("one"), message("two", wait="2d"), message("three", wait="5d")]), Someone())
    life.look(NOW)
    sent, at = [], NOW
    while life.latest is not None and life.latest.active:
        name = life.deliver(at)
        sent += [name] if name else []
        assert life.latest.due_at is not None
        at = max(at, life.latest.due_at)
        life.look(at)
        assert identities_hold(life.enrolments)
    assert (sent, at) == (["one", "two", "three"], NOW + 7 * DAY)


def test_a_continuous_campaign_enrols_a_user_repeatedly() -> None:
    life, sent = story(40, step=6 * HOUR, entry={"again_after": "10d"})
    assert [enrolment.entry for enrolment in life.enrolments] == [1, 2, 3, 4]
    assert [hours // 24 for name, hours in sent if name == "one"] == [0, 12, 24, 36]
    assert [enrolment.due_at for enrolment in life.enrolments[:-1]] == [None, None, None]


def test_a_user_who_leaves_and_matches_again_waits_out_the_pause() -> None:
    life = Life(campaign(entry={"again_after": "10d"}), Someone())
    life.settle(NOW)
    life.user = GONE
    life.settle(NOW + DAY)
    assert life.latest is not None
    assert life.latest.due_at == NOW + 11 * DAY
    life.user = Someone()
    life.settle(NOW + 2 * DAY)
    assert len(life.enrolments) == 1
    life.settle(NOW + 11 * DAY)
    assert [enrolment.reason for enrolment in life.enrolments] == [ExitReason.UNMATCHED, None]


def test_an_exit_settles_a_queued_delivery_as_skipped_in_the_same_write() -> None:
    life = Life(campaign(), Someone())
    life.look(NOW)
    before = life.latest
    life.user = GONE
    life.look(NOW + HOUR)
    assert life.latest is not None
    assert before is not None
    assert life.latest.version == before.version + 1
    assert (life.latest.state, life.latest.outgoing) == (StayState.ENDED, None)
    assert life.latest.settled == (Settled("one", DeliveryState.SKIPPED, NOW + HOUR, "exited"),)


def test_a_cancelled_campaign_settles_queued_deliveries_as_cancelled() -> None:
    life = Life(campaign(), Someone())
    life.look(NOW)
    life.campaign = campaign(state=CampaignState.CANCELLED)
    assert life.deliver(NOW + HOUR) is None
    life.look(NOW + HOUR)
    assert ends(life) == [("one", SkipReason.CANCELLED.value)]
    assert life.latest is not None
    assert (life.latest.reason, life.latest.due_at) == (ExitReason.CANCELLED, None)


def test_an_attempting_delivery_settles_before_the_enrolment_exits() -> None:
    life = Life(campaign(), Someone())
    life.look(NOW)
    assert life.latest is not None
    life.enrolments = [marked(life.latest)]
    life.user = GONE
    life.look(NOW + 1)
    assert life.latest.active
    life.enrolments = [
        replace(life.enrolments[0], outgoing=replace(life.enrolments[0].outgoing, state=DeliveryState.QUEUED))
    ]
    life.deliver(NOW + 2)
    assert life.latest.due_at == NOW + 2
    life.look(NOW + 2)
    assert (life.latest.reason, ends(life)) == (ExitReason.UNMATCHED, [("one", "sent")])


def test_an_evaluation_deferred_by_an_attempt_is_repeated_when_the_delivery_is_requeued() -> None:
    life = Life(campaign(), Someone())
    life.look(NOW)
    assert life.latest is not None
    life.enrolments = [marked(life.latest)]
    life.user = GONE
    life.look(NOW + 1)
    assert life.latest.due_at is None
    life.enrolments = [put_back(life.latest, NOW + 2)]
    life.settle(NOW + 2)
    assert (life.latest.reason, ends(life)) == (ExitReason.UNMATCHED, [("one", "exited")])


def test_a_holdout_takes_as_long_as_the_others_and_gets_nothing() -> None:
    name = next(str(n) for n in range(100) if look(campaign(holdout="50%"), Someone(name=str(n))).holdout)
    life, sent = story(holdout="50%", user=Someone(name=name))
    assert sent == []
    assert ends(life) == [("one", "holdout"), ("two", "holdout")]
    assert life.latest is not None
    assert (life.latest.reason, life.latest.ended_at) == (ExitReason.COMPLETED, NOW + 2 * DAY)


def test_a_late_message_settles_in_the_choosing_write_and_the_next_follows() -> None:
    life, sent = story(messages=[message("one", wait="3d", not_after="2026-12-03"), message("two")])
    assert sent == [("two", 72)]
    assert ends(life) == [("one", "too_late"), ("two", "sent")]


def test_failed_and_unknown_count_as_settled_and_the_series_continues() -> None:
    for state in (DeliveryState.FAILED, DeliveryState.UNKNOWN):
        life = Life(campaign(messages=[message("one"), message("two")]), Someone())
        life.settle(NOW)
        assert life.deliver(NOW, state) == "one"
        life.settle(NOW)
        assert life.deliver(NOW) == "two"
        assert ends(life) == [("one", state.value), ("two", "sent")]


def test_a_buyer_converts_before_or_after_the_exit() -> None:
    rules = {"goal": {"event": {"name": ORDER}, "within": "5d"}}
    bought = Someone(events=[(ORDER, NOW + 3 * HOUR, {})])
    life, sent = story(user=bought, **rules)
    assert life.latest is not None
    assert (life.latest.reason, life.latest.converted_at, sent) == (ExitReason.GOAL, NOW + 3 * HOUR, [("one", 0)])
    later, _ = story(user=Someone(events=[(ORDER, NOW + 4 * DAY, {})]), **rules)
    assert later.latest is not None
    assert (later.latest.reason, later.latest.converted_at) == (ExitReason.COMPLETED, NOW + 4 * DAY)
    never, _ = story(user=Someone(events=[(ORDER, NOW + 6 * DAY, {})]), **rules)
    assert never.latest is not None
    assert never.latest.converted_at is None


def test_a_paused_campaign_decides_nothing_and_resumes_unchanged() -> None:
    life = Life(campaign(), Someone())
    life.settle(NOW)
    life.deliver(NOW)
    life.settle(NOW)
    life.campaign = campaign(state=CampaignState.PAUSED)
    before = list(life.enrolments)
    life.look(NOW + 50 * DAY)
    assert life.enrolments == before
    life.campaign = campaign(resumed_at=NOW + 50 * DAY)
    life.settle(NOW + 50 * DAY)
    assert life.deliver(NOW + 50 * DAY) == "two"


def test_an_inactive_enrolment_ends_without_a_further_message() -> None:
    waiting = {"messages": [message("one", when={"points": 1})]}
    life = Life(campaign(**waiting), Someone(), timedelta(days=10))
    life.settle(NOW)
    life.settle(NOW + 10 * DAY)
    assert life.latest is not None
    assert (life.latest.reason, life.latest.settled) == (ExitReason.INACTIVE, ())


def test_an_evaluation_without_a_change_writes_nothing() -> None:
    life = Life(campaign(messages=[message("one", wait="3d")]), Someone())
    life.look(NOW)
    assert life.latest is not None
    version = life.latest.version
    life.look(NOW + DAY)
    assert life.latest.version == version


def test_an_evaluation_under_a_newer_revision_notes_it_in_the_enrolment() -> None:
    life = Life(campaign(messages=[message("one", wait="3d")]), Someone())
    life.look(NOW)
    life.campaign = campaign(messages=[message("one", wait="3d"), message("two")], revision=2)
    life.look(NOW)
    assert life.latest is not None
    assert life.latest.revision == 2


def test_a_decision_on_an_older_version_changes_nothing() -> None:
    life = Life(campaign(), Someone())
    life.look(NOW)
    assert life.latest is not None
    change = change_of(life.campaign, piece_at(NOW), life.latest, look(life.campaign, GONE, life.latest))
    assert change is not None
    newer = marked(life.latest)
    assert advanced(newer, change) == newer


def test_attributes_of_an_enrolment_survive_every_write() -> None:
    life, _ = story(user=Someone(dict(GOLD)), entry={"again_after": "1d"}, days=10)
    for number, enrolment in enumerate(life.enrolments, 1):
        assert (enrolment.entry, enrolment.user, enrolment.campaign) == (number, life.user.key, "c1")
        assert enrolment.id.endswith(f"/{number:04d}")
