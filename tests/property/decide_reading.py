"""A second implementation of `docs/semantics.md`, section 2: slow, plain, without the engine's decision or predicates.

Rules are random campaigns; each predicate has a Python function beside it that defines its meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from engine.clock import format_instant
from engine.domain.enrolment import Enrolment
from engine.domain.keys import arm
from tests.support.decision_cases import DAY, NOW, ORDER, Someone, message

COUPON = "Coupon Redeemed"
HALF = DAY // 2

Meaning = Callable[[Someone, int], bool]


@dataclass(frozen=True)
class Rule:
    """A predicate in its written form, and its meaning."""

    written: Mapping[str, Any]
    means: Meaning


def times(user: Someone, name: str, after: int | None, until: int) -> list[int]:
    return sorted(t for event, t, _ in user.events if event == name and t <= until and (after is None or t > after))


def seen(user: Someone, holds: Callable[[int], bool]) -> bool:
    return "seen" in user.attributes and holds(user.attributes["seen"])


FIELDS = [
    Rule({"plan": "gold"}, lambda user, _: user.attributes.get("plan") == "gold"),
    Rule({"points": {"gte": 2}}, lambda user, _: user.attributes.get("points", 0) >= 2),
    Rule({"seen": {"older_than": "2d"}}, lambda user, at: seen(user, lambda t: t <= at - 2 * DAY)),
    Rule({"seen": {"within": "2d"}}, lambda user, at: seen(user, lambda t: at - 2 * DAY < t <= at)),
    Rule({"seen": {"within_next": "1d"}}, lambda user, at: seen(user, lambda t: at < t <= at + DAY)),
]
EVENTS = [
    Rule({"event": {"name": ORDER, "within": "2d"}}, lambda user, at: bool(times(user, ORDER, at - 2 * DAY, at))),
    Rule({"event": {"name": ORDER}}, lambda user, at: bool(times(user, ORDER, None, at))),
    Rule(
        {"none": [{"event": {"name": ORDER, "within": "2d"}}]},
        lambda user, at: not times(user, ORDER, at - 2 * DAY, at),
    ),
    Rule(
        {"event": {"name": ORDER, "within": "3d", "count": {"gte": 2}}},
        lambda user, at: len(times(user, ORDER, at - 3 * DAY, at)) >= 2,
    ),
    Rule(
        {"all": [{"plan": "gold"}], "none": [{"event": {"name": COUPON, "within": "1d"}}]},
        lambda user, at: user.attributes.get("plan") == "gold" and not times(user, COUPON, at - DAY, at),
    ),
]
EVERYBODY = Rule({"all": []}, lambda _user, _at: True)
ANY_RULE = st.sampled_from([FIELDS[0], *FIELDS, *EVENTS])


@dataclass(frozen=True)
class Step:
    """One message of the series."""

    name: str
    wait: int
    when: Rule | None
    not_after: int | None


@dataclass(frozen=True)
class Rules:
    """A campaign. Lengths in ms; `goal_fields` is None where the goal is an event alone."""

    one_off: bool
    audience: Rule
    unmatched: bool | None
    exit_when: Rule | None
    again_after: int | None
    goal_event: bool
    goal_fields: Rule | None
    goal_within: int | None
    goal_exits: bool
    holdout: bool
    steps: tuple[Step, ...]
    inactivity: int

    @property
    def written(self) -> dict[str, Any]:
        """Return the campaign as its author writes it."""
        goal: dict[str, Any] = {"event": {"name": ORDER}} if self.goal_event else {}
        if self.goal_fields is not None:
            fields = dict(self.goal_fields.written)
            goal = {"any": [goal, fields]} if goal else fields
        if goal:
            goal |= {} if self.goal_exits else {"exits": False}
            goal |= {} if self.goal_within is None else {"within": f"{self.goal_within}ms"}
        leaves = {} if self.unmatched is None else {"unmatched": self.unmatched}
        leaves |= {} if self.exit_when is None else {"when": dict(self.exit_when.written)}
        return {
            "kind": "one_off" if self.one_off else "continuous",
            "audience": dict(self.audience.written),
            "messages": [
                message(
                    step.name,
                    wait=f"{step.wait}ms",
                    **({} if step.when is None else {"when": dict(step.when.written)}),
                    **({} if step.not_after is None else {"not_after": format_instant(step.not_after)}),
                )
                for step in self.steps
            ],
            **({"goal": goal} if goal else {}),
            **({"exit": leaves} if leaves else {}),
            **({"entry": {"again_after": f"{self.again_after}ms"}} if self.again_after is not None else {}),
            **({"holdout": "50%"} if self.holdout else {}),
        }


def reading(
    rules: Rules, state: str, launching: bool, resumed_at: int, user: Someone, last: Enrolment | None, as_of: int
) -> tuple[str, int | None, int | None]:
    """Return the result of an evaluation as text, the number of the enrolment that it opens, and its conversion."""
    converted = None
    if last is not None and last.converted_at is None:
        converted = conversion(rules, user, last.entered_at, last.due_at, as_of)
    if state in ("paused", "finished"):
        return "wait" if last is not None and last.active else "ignore", None, converted
    if last is None or not last.active:
        live = state == "live" and (launching or not rules.one_off)
        may = last is None or (rules.again_after is not None and as_of >= (last.ended_at or 0) + rules.again_after)
        met = rules.goal_fields is not None and rules.goal_fields.means(user, as_of)
        if not live or user.deleted or not may or not rules.audience.means(user, as_of) or met:
            return "ignore", None, converted
        entry = 1 if last is None else last.entry + 1
        kept = rules.holdout and arm("c1", "holdout", user.name) < 0.5
        return inside(rules, state, resumed_at, user, as_of, as_of, {}, None, kept, False), entry, converted
    if last.outgoing is not None and last.outgoing.state == "attempting":
        return "wait", None, converted
    settled = {delivery.message: delivery.at for delivery in last.settled}
    outgoing = last.outgoing.message if last.outgoing else None
    reached = converted is not None or last.converted_at is not None
    what = inside(rules, state, resumed_at, user, as_of, last.entered_at, settled, outgoing, last.holdout, reached)
    return what, None, converted


def conversion(rules: Rules, user: Someone, entered: int, due: int | None, as_of: int) -> int | None:
    """Return when the user reached the goal: the first order after entry, else the fields at `as_of`, in the window.

    A late evaluation finds the moment, since the enrolment was due, at which time alone made the fields match (even if
    they stopped matching later). Events from before a user's deletion count; a deleted user has no fields.
    """
    closes = as_of if rules.goal_within is None else entered + rules.goal_within
    orders = [t for t in times(user, ORDER, entered, as_of) if t <= closes] if rules.goal_event else []
    if orders:
        return orders[0]
    if rules.goal_fields is None or user.deleted:
        return None
    means = rules.goal_fields.means
    if as_of <= closes and means(user, as_of):
        return as_of
    seen_at = user.attributes.get("seen", as_of + 100 * DAY)
    turns = (t for t in (seen_at - DAY, seen_at, seen_at + 2 * DAY) if means(user, t) and not means(user, t - 1))
    return min((t for t in turns if due is not None and due <= t <= min(as_of, closes)), default=None)


def inside(
    rules: Rules,
    state: str,
    resumed_at: int,
    user: Someone,
    as_of: int,
    entered: int,
    settled: Mapping[str, int],
    outgoing: str | None,
    holdout: bool,
    reached: bool,
) -> str:
    """Apply the rules in order to an active enrolment whose delivery, if any, is queued."""
    last = max(settled.values(), default=entered)
    if user.deleted:
        return "exit deleted"
    if state == "cancelled":
        return "exit cancelled"
    if reached and rules.goal_exits:
        return "exit goal"
    if rules.exit_when is not None and rules.exit_when.means(user, as_of):
        return "exit unmatched"
    leaves = not rules.one_off if rules.unmatched is None else rules.unmatched
    if leaves and not rules.audience.means(user, as_of):
        return "exit unmatched"
    if outgoing is not None:
        return "wait"
    if as_of >= max(entered, last, resumed_at) + rules.inactivity:
        return "exit inactive"
    unsettled = [step for step in rules.steps if step.name not in settled]
    if not unsettled:
        return "exit completed"
    first = next((step for step in unsettled if step.when is None or step.when.means(user, as_of)), None)
    if first is None or as_of < last + first.wait:
        return "wait"
    if first.not_after is not None and as_of > first.not_after:
        return f"skip {first.name} too_late"
    return f"skip {first.name} holdout" if holdout else f"send {first.name}"


INSTANTS = st.builds(lambda n, nudge: NOW + n * HALF + nudge, st.integers(-6, 16), st.sampled_from([-1, 0, 0, 1]))


@st.composite
def campaigns(draw: st.DrawFn) -> Rules:
    """Draw random rules of a campaign."""
    one_off = draw(st.booleans())
    maybe = st.one_of(st.none(), ANY_RULE)
    goal_event, goal_fields = draw(st.booleans()), draw(st.one_of(st.none(), st.sampled_from(FIELDS)))
    steps = tuple(
        Step(
            f"m{number}",
            draw(st.sampled_from([0, HALF, DAY, 2 * DAY])),
            draw(st.one_of(st.none(), maybe)),
            draw(st.one_of(st.none(), st.none(), INSTANTS)),
        )
        for number in range(draw(st.integers(1, 3)))
    )
    return Rules(
        one_off=one_off,
        audience=draw(st.one_of(st.just(EVERYBODY), ANY_RULE)),
        unmatched=draw(st.one_of(st.none(), st.none(), st.booleans())),
        exit_when=draw(st.one_of(st.none(), maybe)),
        again_after=None if one_off else draw(st.sampled_from([None, HALF, 2 * DAY])),
        goal_event=goal_event,
        goal_fields=goal_fields,
        goal_within=draw(st.sampled_from([None, 2 * DAY])),
        goal_exits=draw(st.booleans()),
        holdout=draw(st.booleans()),
        steps=steps,
        inactivity=draw(st.sampled_from([3 * DAY, 45 * DAY])),
    )


@st.composite
def people(draw: st.DrawFn) -> Someone:
    """Draw a random user: attributes may be missing, and events may lie in the future."""
    attributes: dict[str, Any] = {}
    if draw(st.integers(0, 3)):
        attributes["plan"] = draw(st.sampled_from(["gold", "gold", "free"]))
    if draw(st.booleans()):
        attributes["points"] = draw(st.integers(1, 3))
    if draw(st.booleans()):
        attributes["seen"] = draw(INSTANTS)
    events = draw(st.lists(st.tuples(st.sampled_from([ORDER, ORDER, COUPON]), INSTANTS, st.just({})), max_size=4))
    return Someone(attributes, events, name=draw(st.sampled_from(["ann", "bob", "eve", "joe"])))
