"""Sequences of decisions from entry to exit, with correct counts after each step."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from engine.domain.enrolment import Settled
from engine.domain.lifecycle import CampaignState, DeliveryState, EnrolmentState, ExitReason, SkipReason
from engine.pipeline.evaluation.evaluate import change_of
from tests.support.decision_cases import DAY, GOLD, HOUR, NOW, ORDER, Someone, campaign, evaluate, message
from tests.support.enrolment_history import History, advanced, identities_hold, marked, origin_at, put_back

GONE = Someone({"plan": "free"})


def ends(history: History) -> list[tuple[str, str | None]]:
    assert history.latest is not None
    return [(delivery.message, delivery.reason or delivery.state.value) for delivery in history.latest.settled]


def story(
    days: int = 30, *, step: int = HOUR, user: Someone | None = None, **written: Any
) -> tuple[History, list[tuple[str, int]]]:
    """Evaluate each hour; return the history and the sent messages, as (message, hours after the start)."""
    history = History(campaign(**written), user or Someone())
    sent: list[tuple[str, int]] = []
    for as_of in range(NOW, NOW + days * DAY + 1, step):
        history.settle(as_of)
        while (name := history.deliver(as_of)) is not None:
            sent.append((name, (as_of - NOW) // HOUR))
            history.settle(as_of)
        assert identities_hold(history.enrolments)
    return history, sent


def test_a_series_is_sent_in_order_with_its_waits_and_ends_completed() -> None:
    history, sent = story()
    assert sent == [("one", 0), ("two", 48)]
    assert [(enrolment.reason, enrolment.ended_at) for enrolment in history.enrolments] == [
        (ExitReason.COMPLETED, NOW + 2 * DAY)
    ]


def test_due_times_alone_lead_an_enrolment_to_its_end() -> None:
    """No pass visits the user: each evaluation happens at the due time that the previous one set."""
    history = History(
        campaign(messages=[message("one"), message("two", wait="2d"), message("three", wait="5d")]), Someone()
    )
    history.evaluate(NOW)
    sent, at = [], NOW
    while history.latest is not None and history.latest.active:
        name = history.deliver(at)
        sent += [name] if name else []
        assert history.latest.due_at is not None
        at = max(at, history.latest.due_at)
        history.evaluate(at)
        assert identities_hold(history.enrolments)
    assert (sent, at) == (["one", "two", "three"], NOW + 7 * DAY)


def test_a_continuous_campaign_enrols_a_user_repeatedly() -> None:
    history, sent = story(40, step=6 * HOUR, entry={"again_after": "10d"})
    assert [enrolment.entry for enrolment in history.enrolments] == [1, 2, 3, 4]
    assert [hours // 24 for name, hours in sent if name == "one"] == [0, 12, 24, 36]
    assert [enrolment.due_at for enrolment in history.enrolments[:-1]] == [None, None, None]


def test_a_user_who_leaves_and_matches_again_waits_out_the_pause() -> None:
    history = History(campaign(entry={"again_after": "10d"}), Someone())
    history.settle(NOW)
    history.user = GONE
    history.settle(NOW + DAY)
    assert history.latest is not None
    assert history.latest.due_at == NOW + 11 * DAY
    history.user = Someone()
    history.settle(NOW + 2 * DAY)
    assert len(history.enrolments) == 1
    history.settle(NOW + 11 * DAY)
    assert [enrolment.reason for enrolment in history.enrolments] == [ExitReason.UNMATCHED, None]


def test_an_exit_settles_a_queued_delivery_as_skipped_in_the_same_write() -> None:
    history = History(campaign(), Someone())
    history.evaluate(NOW)
    before = history.latest
    history.user = GONE
    history.evaluate(NOW + HOUR)
    assert history.latest is not None
    assert before is not None
    assert history.latest.version == before.version + 1
    assert (history.latest.state, history.latest.outgoing) == (EnrolmentState.ENDED, None)
    assert history.latest.settled == (Settled("one", DeliveryState.SKIPPED, NOW + HOUR, "exited"),)


def test_a_cancelled_campaign_settles_queued_deliveries_as_cancelled() -> None:
    history = History(campaign(), Someone())
    history.evaluate(NOW)
    history.campaign = campaign(state=CampaignState.CANCELLED)
    assert history.deliver(NOW + HOUR) is None
    history.evaluate(NOW + HOUR)
    assert ends(history) == [("one", SkipReason.CANCELLED.value)]
    assert history.latest is not None
    assert (history.latest.reason, history.latest.due_at) == (ExitReason.CANCELLED, None)


def test_an_attempting_delivery_settles_before_the_enrolment_exits() -> None:
    history = History(campaign(), Someone())
    history.evaluate(NOW)
    assert history.latest is not None
    history.enrolments = [marked(history.latest)]
    history.user = GONE
    history.evaluate(NOW + 1)
    assert history.latest.active
    history.enrolments = [
        replace(history.enrolments[0], outgoing=replace(history.enrolments[0].outgoing, state=DeliveryState.QUEUED))
    ]
    history.deliver(NOW + 2)
    assert history.latest.due_at == NOW + 2
    history.evaluate(NOW + 2)
    assert (history.latest.reason, ends(history)) == (ExitReason.UNMATCHED, [("one", "sent")])


def test_an_evaluation_deferred_by_an_attempt_is_repeated_when_the_delivery_is_requeued() -> None:
    history = History(campaign(), Someone())
    history.evaluate(NOW)
    assert history.latest is not None
    history.enrolments = [marked(history.latest)]
    history.user = GONE
    history.evaluate(NOW + 1)
    assert history.latest.due_at is None
    history.enrolments = [put_back(history.latest, NOW + 2)]
    history.settle(NOW + 2)
    assert (history.latest.reason, ends(history)) == (ExitReason.UNMATCHED, [("one", "exited")])


def test_a_holdout_takes_as_long_as_the_others_and_gets_nothing() -> None:
    name = next(str(n) for n in range(100) if evaluate(campaign(holdout="50%"), Someone(name=str(n))).holdout)
    history, sent = story(holdout="50%", user=Someone(name=name))
    assert sent == []
    assert ends(history) == [("one", "holdout"), ("two", "holdout")]
    assert history.latest is not None
    assert (history.latest.reason, history.latest.ended_at) == (ExitReason.COMPLETED, NOW + 2 * DAY)


def test_a_late_message_settles_in_the_choosing_write_and_the_next_follows() -> None:
    history, sent = story(messages=[message("one", wait="3d", not_after="2026-12-03"), message("two")])
    assert sent == [("two", 72)]
    assert ends(history) == [("one", "too_late"), ("two", "sent")]


def test_failed_and_unknown_count_as_settled_and_the_series_continues() -> None:
    for state in (DeliveryState.FAILED, DeliveryState.UNKNOWN):
        history = History(campaign(messages=[message("one"), message("two")]), Someone())
        history.settle(NOW)
        assert history.deliver(NOW, state) == "one"
        history.settle(NOW)
        assert history.deliver(NOW) == "two"
        assert ends(history) == [("one", state.value), ("two", "sent")]


def test_a_buyer_converts_before_or_after_the_exit() -> None:
    rules = {"goal": {"event": {"name": ORDER}, "within": "5d"}}
    bought = Someone(events=[(ORDER, NOW + 3 * HOUR, {})])
    history, sent = story(user=bought, **rules)
    assert history.latest is not None
    assert (history.latest.reason, history.latest.converted_at, sent) == (ExitReason.GOAL, NOW + 3 * HOUR, [("one", 0)])
    later, _ = story(user=Someone(events=[(ORDER, NOW + 4 * DAY, {})]), **rules)
    assert later.latest is not None
    assert (later.latest.reason, later.latest.converted_at) == (ExitReason.COMPLETED, NOW + 4 * DAY)
    never, _ = story(user=Someone(events=[(ORDER, NOW + 6 * DAY, {})]), **rules)
    assert never.latest is not None
    assert never.latest.converted_at is None


def test_a_paused_campaign_decides_nothing_and_resumes_unchanged() -> None:
    history = History(campaign(), Someone())
    history.settle(NOW)
    history.deliver(NOW)
    history.settle(NOW)
    history.campaign = campaign(state=CampaignState.PAUSED)
    before = list(history.enrolments)
    history.evaluate(NOW + 50 * DAY)
    assert history.enrolments == before
    history.campaign = campaign(resumed_at=NOW + 50 * DAY)
    history.settle(NOW + 50 * DAY)
    assert history.deliver(NOW + 50 * DAY) == "two"


def test_an_inactive_enrolment_ends_without_a_further_message() -> None:
    waiting = {"messages": [message("one", when={"points": 1})]}
    history = History(campaign(**waiting), Someone(), timedelta(days=10))
    history.settle(NOW)
    history.settle(NOW + 10 * DAY)
    assert history.latest is not None
    assert (history.latest.reason, history.latest.settled) == (ExitReason.INACTIVE, ())


def test_an_evaluation_without_a_change_writes_nothing() -> None:
    history = History(campaign(messages=[message("one", wait="3d")]), Someone())
    history.evaluate(NOW)
    assert history.latest is not None
    version = history.latest.version
    history.evaluate(NOW + DAY)
    assert history.latest.version == version


def test_an_evaluation_under_a_newer_revision_notes_it_in_the_enrolment() -> None:
    history = History(campaign(messages=[message("one", wait="3d")]), Someone())
    history.evaluate(NOW)
    history.campaign = campaign(messages=[message("one", wait="3d"), message("two")], revision=2)
    history.evaluate(NOW)
    assert history.latest is not None
    assert history.latest.revision == 2


def test_a_decision_on_an_older_version_changes_nothing() -> None:
    history = History(campaign(), Someone())
    history.evaluate(NOW)
    assert history.latest is not None
    change = change_of(
        history.campaign, origin_at(NOW), history.latest, evaluate(history.campaign, GONE, history.latest)
    )
    assert change is not None
    newer = marked(history.latest)
    assert advanced(newer, change) == newer


def test_attributes_of_an_enrolment_survive_every_write() -> None:
    history, _ = story(user=Someone(dict(GOLD)), entry={"again_after": "1d"}, days=10)
    for number, enrolment in enumerate(history.enrolments, 1):
        assert (enrolment.entry, enrolment.user, enrolment.campaign) == (number, history.user.key, "c1")
        assert enrolment.id.endswith(f"/{number:04d}")
