"""Work as small documents: runs, slices and the failures and leases that belong to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from engine.clock import Instant
from engine.domain.lifecycle import RunState, SliceState


class RunKind(StrEnum):
    """Why a run was created. The kind also decides which users or enrolments the run reads.

    `launch` finds the whole audience. `pass` finds those whom time alone has let into the audience since the last pass.
    `due` reads enrolments whose due time has passed. `idle` reads enrolments without a settled message for longer than
    the inactivity window. `stays` reads every active enrolment (after an edit or a cancel). `resume` reads everybody
    after a pause or an edit of the goal. `reconcile` reads everybody as a safety net (the full pass).
    """

    LAUNCH = "launch"
    PASS = "pass"  # noqa: S105 - the field's word, no secret
    STAYS = "stays"
    DUE = "due"
    IDLE = "idle"
    RESUME = "resume"
    RECONCILE = "reconcile"


class SliceKind(StrEnum):
    """The records that a slice processes: candidates for entry, everybody, enrolments of some kind, or deliveries."""

    CANDIDATES = "candidates"
    EVERYBODY = "everybody"
    STAYS = "stays"
    DUE = "due"
    IDLE = "idle"
    DELIVER = "deliver"


SLICE_OF_RUN = {
    RunKind.LAUNCH: SliceKind.CANDIDATES,
    RunKind.PASS: SliceKind.CANDIDATES,
    RunKind.STAYS: SliceKind.STAYS,
    RunKind.DUE: SliceKind.DUE,
    RunKind.IDLE: SliceKind.IDLE,
    RunKind.RESUME: SliceKind.EVERYBODY,
    RunKind.RECONCILE: SliceKind.EVERYBODY,
}

OF_ENROLLED = frozenset({RunKind.STAYS, RunKind.RESUME, RunKind.RECONCILE})
"""Runs that evaluate every enrolled user."""

OF_EVERYBODY = frozenset({RunKind.RESUME, RunKind.RECONCILE})
"""Runs that evaluate everybody, including those who have left."""

OF_USERS = frozenset({SliceKind.CANDIDATES, SliceKind.EVERYBODY})
"""Slices that read users; the others read enrolments."""


class AccessPath(StrEnum):
    """How a slice of candidates finds its users (`engine.decisions.access_path_cost` chooses).

    `scan`: every user of the range from MongoDB; `index`: MongoDB by an index on a field; `list`: the members of a
    list; `elastic`: Elasticsearch names the matching users; `cache`: every user of the range from the user cache.
    """

    SCAN = "scan"
    INDEX = "index"
    LIST = "list"
    ELASTIC = "elastic"
    CACHE = "cache"


@dataclass(frozen=True, slots=True)
class Failure:
    """The failure of a run or slice since its last success: why, since when, how often, and until when it rests.

    `since` and `until` are system time (ms) by MongoDB's clock; `reason` contains no personal data.
    """

    reason: str
    since: Instant
    count: int
    until: Instant = 0


@dataclass(frozen=True, slots=True)
class Run:
    """One pass of one campaign at a fixed `as_of` (campaign time), cut into slices by hash.

    `after` is the `as_of` of the previous pass if the run looks only for users whom time has let in since then (None:
    the whole audience). `path` is the access path that somebody requested, or that planning chose. `evaluation` is the
    campaign's `evaluation_wanted` at the run's creation: once the run is completely decided, it has carried out that
    evaluation for the users it reads. `failure` says why the run could not be planned or closed. `takes_over` is
    True for a pass that covers the dropped slices of an earlier one. `inactivity` (ms) and `policy` are the campaign's
    inactivity window and the version of the policies in force at the run's creation.
    """

    id: str
    workspace: str
    campaign: str
    kind: RunKind
    as_of: Instant
    state: RunState
    after: Instant | None = None
    path: AccessPath | None = None
    evaluation: int = 0
    failure: Failure | None = None
    takes_over: bool = False
    inactivity: int | None = None
    policy: str | None = None

    @property
    def evaluates_all(self) -> bool:
        """Whether the run evaluates everybody who may enter, not only users whom time has let in since another pass."""
        return self.kind in OF_EVERYBODY or (self.kind is RunKind.PASS and self.after is None)


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run as a report shows it: what planning chose and estimated, and what came of it.

    `plan` is empty if planning estimated nothing. `results` holds counts by name. `took` is the wall-clock time from
    the plan to the end (None until then).
    """

    id: str
    kind: RunKind
    as_of: Instant
    state: RunState
    plan: Mapping[str, object]
    results: Mapping[str, int]
    took: timedelta | None


@dataclass(frozen=True, slots=True)
class WindowCost:
    """The cost of the decided runs of one campaign under one inactivity window, without launches and resumes.

    `since` is the `as_of` of the first of these runs and `policy` the version of the policies at the last. They
    evaluated `evaluated` users and chose `chosen` messages, including those of the holdout.
    """

    inactivity: timedelta
    policy: str
    since: Instant
    runs: int
    evaluated: int
    chosen: int

    @property
    def each(self) -> float | None:
        """Return users evaluated per message; None if no message was chosen."""
        return self.evaluated / self.chosen if self.chosen else None


@dataclass(frozen=True, slots=True)
class Slice:
    """The unit of dispatch and lease: a campaign and a range `[first, until)` of user suffixes.

    `cursor` is the last user suffix (`h/u`) whose work is done; in slices that read enrolments it is the last enrolment
    (`h/u/entry`). It is written only after that work. `attempt` counts claims, and `errors` counts claims that raised.
    `deaths` counts claims that ended without a checkpoint while the slice was a suspect (one that may have killed a
    worker). `overruns` counts claims that exceeded the lane's time limit. `slow` is True if this slice, or the slice
    that it is a half of, exceeded one: it decides in the slow lane. `token` names the lease of the current claim. Only
    slices of candidates have an access path (`path`) and `after`, the `as_of` of the previous pass. `of` is the number
    of slices of the run, or of the clock's round of delivering slices, if it cuts the whole hash space, otherwise None.
    """

    id: str
    run: str | None
    workspace: str
    campaign: str
    kind: SliceKind
    as_of: Instant
    first: str
    until: str
    state: SliceState = SliceState.OPEN
    cursor: str | None = None
    attempt: int = 0
    suspect: bool = False
    deaths: int = 0
    errors: int = 0
    token: str | None = None
    results: dict[str, int] = field(default_factory=dict)
    after: Instant | None = None
    path: AccessPath | None = None
    of: int | None = None
    overruns: int = 0
    slow: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """An open slice as the dispatcher sees it: leased (`held`), enqueued (`rung`), not or no longer put off (`ready`).

    `broken_for` is the time (ms) since a death or an exception broke off a batch of the slice, if no holder has reached
    a checkpoint since. `failure` is the exception raised since then. `worked` is the time (ms) that workers have held
    it, the current claim included. `overruns` and `slow` are those of the slice.
    """

    id: str
    workspace: str
    campaign: str
    kind: SliceKind
    suspect: bool
    held: bool
    rung: bool
    ready: bool
    deaths: int = 0
    errors: int = 0
    broken_for: int | None = None
    failure: Failure | None = None
    worked: int = 0
    overruns: int = 0
    slow: bool = False


@dataclass(frozen=True, slots=True)
class Expired:
    """A slice whose lease expired; `progressed` is True if the slice had a checkpoint since its claim."""

    slice: Slice
    token: str
    progressed: bool
