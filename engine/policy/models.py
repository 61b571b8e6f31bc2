"""What a policy file may say: lanes and fleets, and the profiles that campaigns are governed by."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import Field, WithJsonSchema, field_validator, model_validator

from engine.clock import Instant
from engine.yamlfile.scalars import Duration, Misfit, Model, Number, Percent, Slug, Text, Whole, nearest


class LaneKind(StrEnum):
    """What travels in a lane: slices that decide, slices that deliver, or the engine's own messages."""

    DECIDE = "decide"
    DELIVER = "deliver"
    INTERNAL = "internal"


class Guarantee(StrEnum):
    """What happens to a message whose sender died while it was attempting, on a channel that cannot be asked."""

    AT_LEAST_ONCE = "at_least_once"
    AT_MOST_ONCE = "at_most_once"


class CampaignKind(StrEnum):
    """How an audience enters: all at launch, or whenever somebody comes to match."""

    ONE_OFF = "one_off"
    CONTINUOUS = "continuous"


class Cost(StrEnum):
    """What a predicate costs: `slow` if the engine must read events to judge it."""

    QUICK = "quick"
    SLOW = "slow"


RESERVED: Final = ("control", "looks", "index", "suspect")
"""Lanes that the engine itself needs; `suspect` holds slices that may have killed a worker."""

WIDEST: Final = 1_000
"""Deliveries that a thread may mark at once: beyond that a mark costs no less."""

SHORTEST_TIME_LIMIT: Final = timedelta(seconds=5)
"""A lane's time limit is a backstop at three times the longest batch (1.5 s), rounded up."""


class Lane(Model):
    """A queue with a time limit; `depth` messages a worker thread are rung ahead of what is being worked on.

    Work that could be taken and has waited longer than `alarm` makes the lane failing on the map and in the metrics.
    """

    time_limit: Duration = timedelta(seconds=60)
    alarm: Duration = timedelta(minutes=10)
    depth: Whole = Field(default=4, ge=1, le=1_000)
    kind: LaneKind = LaneKind.DECIDE

    @model_validator(mode="after")
    def _long_enough(self) -> Self:
        if self.time_limit < SHORTEST_TIME_LIMIT:
            problem = "is shorter than three batches (a batch takes up to 1.5 s)"
            raise Misfit(problem, "write 5s or more", at=("time_limit",))
        return self


class Fleet(Model):
    """The worker processes that serve some lanes; `worker_timeout` is the longest pause between polls of an idle queue.

    `niceness` is how far they give way to others where the processors are busy, as the operating system has it.
    """

    lanes: tuple[Slug, ...] = Field(min_length=1)
    processes: Whole = Field(default=1, ge=1, le=256)
    threads: Whole = Field(default=4, ge=1, le=256)
    worker_timeout: Duration = Field(default=timedelta(milliseconds=1_000))
    prefetch: Whole | None = Field(default=None, ge=1, le=10_000)
    niceness: Whole = Field(default=0, ge=0, le=19)

    @property
    def workers(self) -> int:
        """Worker threads in all processes of the fleet."""
        return self.processes * self.threads


class Share(Model):
    """What a workspace may have of every lane, where workspaces compete: time by `weight`."""

    weight: Number = Field(default=1, gt=0, le=1_000)


class WarmUp(Model):
    """How a new sender begins: the mails an hour of each day from `since` on; afterwards the full rate holds."""

    since: date
    per_hour: tuple[Number, ...] = Field(min_length=1, max_length=366)

    @field_validator("since", mode="before")
    @classmethod
    def _a_day(cls, given: object) -> object:
        """A day as YAML reads it, or as JSON has it."""
        if isinstance(given, datetime) or not isinstance(given, date | str):
            raise Misfit(f"expected a day such as 2026-12-01, got {given!r}")
        if isinstance(given, str):
            try:
                return date.fromisoformat(given)
            except ValueError:
                raise Misfit(f"expected a day such as 2026-12-01, got {given!r}") from None
        return given

    @model_validator(mode="after")
    def _something_goes(self) -> Self:
        for place, count in enumerate(self.per_hour):
            if count <= 0:
                raise Misfit(f"must be above 0, got {count:g}", at=("per_hour", place))
        return self


class Rate(Model):
    """What a provider takes of a channel, from all workers together; at least one limit, and the lowest one holds."""

    per_second: Number | None = Field(default=None, gt=0, le=1_000_000)
    per_hour: Number | None = Field(default=None, gt=0, le=1_000_000_000)
    warm_up: WarmUp | None = None

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.per_second is None and self.per_hour is None and self.warm_up is None:
            raise Misfit("limits nothing", "write per_second: 100, or remove it")
        return self

    def per_second_at(self, at: Instant) -> float | None:
        """Mails a second at system time `at`; None where only a warm-up that is over limits it."""
        limits = [] if self.per_second is None else [float(self.per_second)]
        limits += [] if self.per_hour is None else [self.per_hour / 3_600]
        if self.warm_up is not None:
            day = (datetime.fromtimestamp(at / 1000, UTC).date() - self.warm_up.since).days
            if day < len(self.warm_up.per_hour):
                limits.append(self.warm_up.per_hour[max(0, day)] / 3_600)
        return min(limits, default=None)


class Gate(Model):
    """When bulk work gives way to a store's other users: above this p95 of a probe, this lag, or this queue.

    The engine never takes less than `at_least` of the store, in operations at a time, so that no campaign starves.
    """

    latency: Duration = timedelta(milliseconds=250)
    lag: Duration = timedelta(seconds=10)
    queue: Whole | None = Field(default=None, ge=1, le=100_000)
    at_least: Number = Field(default=0.25, gt=0, le=1_000)

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.latency < timedelta(milliseconds=1):
            raise Misfit("is too short", "at least 1ms", at=("latency",))
        return self


def _usual_gates() -> Mapping[Literal["mongodb"], Gate]:
    """Return the gates of a set that says nothing about them; `gates: {}` sets none."""
    return {"mongodb": Gate()}


class Lanes(Model):
    """`lanes.yaml`: lanes, the fleets that serve them, how workspaces share them, what providers and stores take."""

    lanes: Mapping[Slug, Lane] = Field(min_length=1)
    fleets: Mapping[Slug, Fleet] = Field(min_length=1)
    workspaces: Mapping[Slug, Share] = Field(default_factory=dict)
    rates: Mapping[Literal["email"], Rate] = Field(default_factory=dict)
    gates: Mapping[Literal["mongodb"], Gate] = Field(default_factory=_usual_gates)

    @model_validator(mode="before")
    @classmethod
    def _reserved_are_internal(cls, given: object) -> object:
        """The engine's own lanes carry its own messages, whatever the default is."""
        if not isinstance(given, dict) or not isinstance(given.get("lanes"), dict):
            return given
        lanes = {
            name: {"kind": LaneKind.INTERNAL.value, **lane} if name in RESERVED and isinstance(lane, dict) else lane
            for name, lane in given["lanes"].items()
        }
        return {**given, "lanes": lanes}

    @model_validator(mode="after")
    def _kinds_fit(self) -> Self:
        for name, lane in self.lanes.items():
            if (lane.kind is LaneKind.INTERNAL) != (name in RESERVED):
                problem = "is reserved for the engine's own messages" if name in RESERVED else "only reserved lanes are"
                hint = "remove kind:" if name in RESERVED else "write decide or deliver"
                raise Misfit(f"{problem}{'' if name in RESERVED else ' internal'}", hint, at=("lanes", name, "kind"))
        return self


_SCHEMA: Final = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
Patterns = Annotated[tuple[Text, ...], Field(min_length=1), WithJsonSchema(_SCHEMA)]
"""One name, or a list of them, in which `*` and `?` stand for any characters and any one."""


class Matches(Model):
    """Which campaigns a profile is for; every key that is given has to fit. Names may hold `*` and `?`."""

    workspace: Patterns = ("*",)
    campaign: Patterns = ("*",)
    kind: CampaignKind | None = None
    cost: Cost | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_or_many(cls, given: object) -> object:
        """One name may stand without the brackets of a list."""
        if not isinstance(given, dict):
            return given
        names = {key: (given[key],) for key in ("workspace", "campaign") if isinstance(given.get(key), str)}
        return {**given, **names}


class SlowWhen(Model):
    """When a campaign is measured to be slow: the 95th percentile per user over so many batches in a row.

    It stays in the slow lane `at_least` so long, so that a campaign near the limit does not swing between two lanes.
    """

    per_user_p95: Duration
    batches: Whole = Field(default=10, ge=1, le=10_000)
    at_least: Duration = timedelta(minutes=10)


class Urgency(StrEnum):
    """Which campaigns come first in a lane, whatever their shares: one of a lower urgency waits for those above."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Overlap(StrEnum):
    """What becomes of a pass whose time comes while an earlier run of its campaign is still open."""

    SKIP = "skip"
    QUEUE = "queue"
    NEWEST = "newest"


class Batch(Model):
    """Users read and decided at once: the sizes that may be tried."""

    candidates: tuple[Whole, ...] = Field(default=(500, 1_000, 5_000), min_length=1)

    @model_validator(mode="after")
    def _within_bounds(self) -> Self:
        for i, size in enumerate(self.candidates):
            if not 1 <= size <= 10_000:
                raise Misfit(f"a batch has 1 to 10000 users, got {size}", at=("candidates", i))
            if size in self.candidates[:i]:
                raise Misfit(f"{size} is listed twice", "keep one", at=("candidates", i))
        return self


class Errors(Model):
    """The error budget: the share of a campaign's deliveries or decisions that may fail, and what happens then."""

    budget: Percent = 0.02
    then: Literal["pause", "report"] = "pause"


class ChannelRule(Model):
    """What a profile says about one channel, in place of its general rule."""

    delivery: Guarantee | None = None
    window: Whole | None = Field(default=None, ge=1, le=WIDEST)


class Profile(Model):
    """`profiles/NAME.yaml`: what governs a campaign. Without `matches` it is for campaigns that name it."""

    profile: Slug
    priority: Whole = Field(default=0, ge=-1_000, le=1_000)
    matches: Matches | None = None
    lane: Slug
    slow_lane: Slug = "slow"
    deliver_lane: Slug = "deliver"
    slow_when: SlowWhen | None = None
    batch: Batch = Batch()
    slice_users: Whole = Field(default=20_000, ge=1, le=1_000_000)
    inactivity: Duration = timedelta(days=45)
    pass_every: Duration = Field(default=timedelta(minutes=1), alias="pass")
    overlap: Overlap = Overlap.QUEUE
    reconcile: Duration = timedelta(hours=24)
    weight: Number = Field(default=1, gt=0, le=1_000)
    urgency: Urgency = Urgency.NORMAL
    in_flight: Whole = Field(default=4, ge=1, le=1_000)
    errors: Errors = Errors()
    late_after: Duration = timedelta(minutes=15)
    delivery: Guarantee = Guarantee.AT_LEAST_ONCE
    window: Whole | None = Field(default=None, ge=1, le=WIDEST)
    channels: Mapping[Literal["email"], ChannelRule] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _times_are_sensible(self) -> Self:
        for key, value, least in (
            ("inactivity", self.inactivity, timedelta(minutes=1)),
            ("pass", self.pass_every, timedelta(seconds=1)),
            ("reconcile", self.reconcile, self.pass_every),
        ):
            if value < least:
                shortest = {"inactivity": "1m", "pass": "1s", "reconcile": "the profile's own pass:"}[key]
                raise Misfit("is too short", f"at least {shortest}", at=(key,))
        return self

    def guarantee(self, channel: str, *, at_most_once: bool | None = None) -> Guarantee:
        """The guarantee on a channel; `at_most_once` is what the campaign itself asks for, if anything."""
        if at_most_once is not None:
            return Guarantee.AT_MOST_ONCE if at_most_once else Guarantee.AT_LEAST_ONCE
        return next(
            (rule.delivery for name, rule in self.channels.items() if name == channel and rule.delivery), self.delivery
        )

    def window_of(self, channel: str, *, at_most_once: bool | None = None) -> int:
        """Deliveries that one thread marks `attempting` at once, at most: 1 where each could end `unknown`, else 1,000.

        A thread marks no more than what begins within half a second by the pace of its provider.
        """
        own = next(
            (rule.window for name, rule in self.channels.items() if name == channel and rule.window), self.window
        )
        if own is not None:
            return own
        return 1 if self.guarantee(channel, at_most_once=at_most_once) is Guarantee.AT_MOST_ONCE else WIDEST


def no_such(what: str, name: str, known: Mapping[str, object]) -> Misfit:
    """The misfit for a name that nothing has, e.g. `there is no lane "slwo"`."""
    return Misfit(f'there is no {what} "{name}"', nearest(name, sorted(known)))
