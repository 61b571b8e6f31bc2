"""Compare the decision with a second reading of `docs/semantics.md`, over random campaigns and histories."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from hypothesis import event, given, settings
from hypothesis import strategies as st

from engine.decisions.decide import Decision, Exit, Ignore, Send, Wait, decide
from engine.domain.lifecycle import CampaignState, DeliveryState
from tests.property.decide_reading import HALF, Rules, campaigns, people, reading
from tests.support.decision_cases import NOW, Patience, Someone, campaign
from tests.support.enrolment_history import History, identities_hold, marked, put_back, settled_as

FOR_EVER = Patience(timedelta(days=100_000))
STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, HALF - 1, HALF, HALF, HALF + 1, 3 * HALF]),
        st.sampled_from(
            ["look"] * 8 + ["send"] * 8 + ["change"] * 4 + ["mark", "mark", "put back", "fail"] * 2
            + ["delete", "pause", "resume", "drain", "cancel"]
        ),
    ),
    min_size=6,
    max_size=24,
)  # fmt: skip


def outcome(decision: Decision) -> str:
    match decision.outcome:
        case Exit(reason):
            return f"exit {reason}"
        case Send(name, None):
            return f"send {name}"
        case Send(name, skip):
            return f"skip {name} {skip}"
        case Wait():
            return "wait"
        case Ignore():
            return "ignore"


class Story:
    """One history, step by step; each evaluation is compared with the second reading."""

    def __init__(self, rules: Rules, user: Someone) -> None:
        self.rules = rules
        self.state = CampaignState.LIVE
        self.resumed_at = 0
        self.history = History(self.campaign, user, timedelta(milliseconds=rules.inactivity))

    @property
    def campaign(self) -> object:
        launching = self.rules.one_off
        return campaign(**self.rules.written, state=self.state, launching=launching, resumed_at=self.resumed_at)

    def move(self, state: CampaignState) -> None:
        self.state = state
        self.history.campaign = self.campaign

    def evaluate(self, as_of: int) -> None:
        user, last = self.history.user, self.history.latest
        expected = reading(self.rules, self.state.value, self.rules.one_off, self.resumed_at, user, last, as_of)
        decision = self.history.evaluate(as_of)
        assert decision is not None
        assert (outcome(decision), decision.enters, decision.converted_at) == expected
        event(outcome(decision).split(" m")[0])
        if self.state is not CampaignState.PAUSED:
            self.check_holds(as_of)

    def check_holds(self, as_of: int) -> None:
        """Check that time alone changes nothing until an enrolment is due, apart from inactivity."""
        latest = self.history.latest
        if latest is None or (not latest.active and latest.due_at is None):
            return
        for later in self.samples(as_of, latest.due_at):
            facts = self.history.user.facts_read(self.history.campaign, latest, later)
            again = decide(self.history.campaign, FOR_EVER, facts, latest, later)
            assert again.outcome == (Wait() if latest.active else Ignore()), later - as_of
            assert again.enters is None

    def samples(self, as_of: int, due: int | None) -> Iterator[int]:
        for n in range(1, 24):
            for nudge in (-1, 0, 1):
                later = NOW + n * HALF + nudge
                if later > as_of and (due is None or later < due):
                    yield later
        if due is not None and due - 1 > as_of:
            yield due - 1

    def deliver(self, what: str, as_of: int) -> None:
        latest = self.history.latest
        if latest is None or latest.outgoing is None:
            return
        queued = latest.outgoing.state is DeliveryState.QUEUED
        if self.state in (CampaignState.PAUSED, CampaignState.CANCELLED) and queued:
            return
        if what == "mark" and queued:
            self.history.enrolments[-1] = marked(latest)
        elif what == "put back" and not queued:
            self.history.enrolments[-1] = put_back(latest, as_of)
        elif what in ("send", "fail"):
            end = DeliveryState.SENT if what == "send" else DeliveryState.FAILED
            self.history.enrolments[-1] = settled_as(marked(latest) if queued else latest, end, as_of)

    def steer(self, what: str, as_of: int) -> None:
        if what == "pause" and self.state is CampaignState.LIVE:
            self.move(CampaignState.PAUSED)
        elif what == "resume" and self.state is CampaignState.PAUSED:
            self.resumed_at = as_of
            self.move(CampaignState.LIVE)
        elif what == "drain" and self.state is CampaignState.LIVE:
            self.move(CampaignState.DRAINING)
        elif what == "cancel" and self.state is not CampaignState.CANCELLED:
            self.move(CampaignState.CANCELLED)


@settings(max_examples=250, deadline=None)
@given(campaigns(), people(), STEPS, st.data())
def test_two_implementations_of_the_semantics_decide_alike(
    rules: Rules, user: Someone, steps: list[tuple[int, str]], data: st.DataObject
) -> None:
    story, as_of = Story(rules, user), NOW
    story.evaluate(as_of)
    for step, what in steps:
        as_of += step
        if what == "change":
            story.history.user = replace(data.draw(people()), name=user.name)
        elif what == "delete":
            story.history.user = replace(story.history.user, deleted=True)
        elif what in ("pause", "resume", "drain", "cancel"):
            story.steer(what, as_of)
        else:
            story.deliver(what, as_of)
        story.evaluate(as_of)
        assert identities_hold(story.history.enrolments)


@settings(max_examples=50, deadline=None)
@given(campaigns(), people())
def test_due_times_find_every_moment_that_half_daily_evaluations_find(rules: Rules, user: Someone) -> None:
    """Evaluating only due enrolments writes the same enrolments as evaluating all the time, to the millisecond."""
    patient = replace(rules, inactivity=36_500_000_000_000)
    often, seldom = Story(patient, user), Story(patient, user)
    moments = sorted({NOW + n * HALF + nudge for n in range(24) for nudge in (-1, 0, 1) if n or nudge >= 0})
    for as_of in moments:
        for story in (often, seldom):
            for _ in range(12):
                latest = story.history.latest
                due = latest is not None and latest.due_at is not None and latest.due_at <= as_of
                entering = latest is None or not latest.active
                if story is often or due or entering:
                    story.evaluate(as_of)
                story.deliver("send", as_of)
        assert plain(often) == plain(seldom)


def plain(story: Story) -> list[object]:
    return [
        (
            enrolment.entry,
            enrolment.entered_at,
            enrolment.reason,
            enrolment.ended_at,
            enrolment.outgoing,
            enrolment.settled,
            enrolment.converted_at,
        )
        for enrolment in story.history.enrolments
    ]
