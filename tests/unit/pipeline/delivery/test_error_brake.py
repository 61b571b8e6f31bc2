"""The error brake: it engages on a burst of failures, and asks for few counts over the campaign."""

from __future__ import annotations

from datetime import timedelta

from engine.decisions.slow_and_failing import LEAST_ENDED, RECENT
from engine.domain.counts import NONE, Ends
from engine.domain.delivery import Cause, Failed, NotBegun, Outcome, Retry, Sent, Unknown
from engine.domain.lifecycle import DeliveryState
from engine.pipeline.delivery.error_brake import JUDGING, SPACING, CampaignBrake
from engine.policy.models import Errors

REFUSED = Failed("smtp_550")
UNSURE = Retry(timedelta(minutes=1), "smtp_554", Cause.UNSURE)


class Time:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def brake(time: Time | None = None, **errors: object) -> CampaignBrake:
    made = CampaignBrake(time or Time(), (0, NONE))
    made.follow(Errors.model_validate(errors))
    return made


def hears(error_brake: CampaignBrake, outcome: Outcome, count: int) -> None:
    error_brake.heard([(place, outcome) for place in range(count)])


def test_it_engages_once_most_of_the_last_deliveries_failed() -> None:
    error_brake = brake()
    hears(error_brake, REFUSED, LEAST_ENDED - 1)
    assert not error_brake.engaged
    hears(error_brake, REFUSED, 1)
    assert error_brake.engaged
    assert error_brake.recent == Ends(LEAST_ENDED, LEAST_ENDED)


def test_it_forgets_the_success_of_long_ago() -> None:
    error_brake = brake()
    hears(error_brake, Sent(), 100_000)
    hears(error_brake, REFUSED, RECENT // 2)
    assert not error_brake.engaged
    hears(error_brake, REFUSED, 1)
    assert error_brake.engaged


def test_it_stays_engaged_while_late_answers_arrive() -> None:
    error_brake = brake()
    hears(error_brake, REFUSED, LEAST_ENDED)
    hears(error_brake, Sent(), RECENT)
    assert error_brake.engaged


def test_outcomes_that_do_not_concern_the_recipient_do_not_count() -> None:
    error_brake = brake()
    for outcome in (NotBegun(), Unknown("smtp_broken"), Retry(timedelta(seconds=1), "smtp_451"), UNSURE):
        hears(error_brake, outcome, 1_000)
    assert error_brake.recent == NONE


def test_an_unsure_refusal_counts_once_the_provider_has_taken_a_mail() -> None:
    error_brake = brake()
    hears(error_brake, Sent(), 1)
    hears(error_brake, UNSURE, LEAST_ENDED)
    assert error_brake.engaged


def test_a_mail_that_cannot_be_composed_counts() -> None:
    error_brake = brake()
    for _ in range(LEAST_ENDED):
        error_brake.not_composed()
    assert error_brake.engaged


def test_a_larger_budget_raises_the_bound_and_a_profile_that_reports_has_none() -> None:
    lenient, reporting = brake(budget="80%"), brake(then="report")
    hears(lenient, Sent(), 30)
    hears(lenient, REFUSED, 70)
    hears(reporting, REFUSED, 1_000)
    assert not lenient.engaged
    assert not reporting.engaged


def test_an_edited_policy_releases_it() -> None:
    error_brake = brake()
    hears(error_brake, REFUSED, LEAST_ENDED)
    error_brake.follow(Errors.model_validate({"then": "report"}))
    assert not error_brake.engaged


def test_a_count_is_due_only_when_the_budget_may_be_exceeded() -> None:
    error_brake = brake(time := Time())
    error_brake.settled(DeliveryState.SENT, 1_000)
    assert not error_brake.is_due(processes=1, at_end=True)
    error_brake.settled(DeliveryState.FAILED, 10)
    assert error_brake.is_due(processes=1, at_end=False)
    error_brake.judged(Ends(10, 1_010), time.now)
    time.now += 60
    error_brake.settled(DeliveryState.FAILED, 10)
    assert not error_brake.is_due(processes=1, at_end=True), "2 % of 1,010 leave room for ten more"
    assert error_brake.is_due(processes=2, at_end=True), "another process may have had as many"
    error_brake.settled(DeliveryState.FAILED, 1)
    assert error_brake.is_due(processes=1, at_end=True)


def test_counts_take_a_small_share_of_the_time() -> None:
    error_brake = brake(time := Time())
    began = time.now
    time.now += 1.0
    error_brake.judged(Ends(2_000, 100_000), began)
    error_brake.settled(DeliveryState.FAILED, 100)
    time.now = began + 1.0 / JUDGING - 0.1
    assert not error_brake.is_due(processes=1, at_end=True)
    time.now = began + 1.0 / JUDGING
    assert error_brake.is_due(processes=1, at_end=True)


def test_a_quick_count_is_repeated_at_the_end_of_each_slice_but_not_within_one() -> None:
    error_brake = brake(time := Time())
    error_brake.judged(Ends(1, 50), time.now)
    error_brake.settled(DeliveryState.FAILED, 60)
    assert error_brake.is_due(processes=1, at_end=True)
    assert not error_brake.is_due(processes=1, at_end=False)
    time.now += SPACING
    assert error_brake.is_due(processes=1, at_end=False)
