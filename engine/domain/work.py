"""Work as small documents: runs, slices and the leases they are held under."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from engine.clock import Instant
from engine.domain.lifecycle import RunState, SliceState


class RunKind(StrEnum):
    """Why a run was made, which also says what it reads.

    `launch` finds the whole audience, `pass` those whom time alone has let into it since the last pass, `due` stays
    whose time has come, `idle` stays without a settled message for longer than the inactivity window, `stays` every
    active stay (after an edit or a cancel), `resume` everybody after a pause or an edit of the goal, `reconcile`
    everybody: the safety net.
    """

    LAUNCH = "launch"
    PASS = "pass"  # noqa: S105 - the field's word, no secret
    STAYS = "stays"
    DUE = "due"
    IDLE = "idle"
    RESUME = "resume"
    RECONCILE = "reconcile"


class SliceKind(StrEnum):
    """What a slice reads and does: users who may enter, everybody, stays of some kind, deliveries."""

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
"""Runs that evaluate everybody who is enrolled."""

OF_EVERYBODY = frozenset({RunKind.RESUME, RunKind.RECONCILE})
"""Runs that evaluate everybody, also those who have left."""

OF_USERS = frozenset({SliceKind.CANDIDATES, SliceKind.EVERYBODY})
"""Slices that read users; the others read stays."""


class AccessPath(StrEnum):
    """How a slice of candidates finds them (`engine.planner` chooses).

    `scan`: every user of the range from MongoDB; `index`: MongoDB by an index on a field; `list`: the members of a
    list; `elastic`: Elasticsearch names those who match; `cache`: every user of the range from the user cache.
    """

    SCAN = "scan"
    INDEX = "index"
    LIST = "list"
    ELASTIC = "elastic"
    CACHE = "cache"


@dataclass(frozen=True, slots=True)
class Failure:
    """What a run or a slice has failed with since its latest success: why, since when, how often, until when it rests.

    `since` and `until` are system time (ms) by MongoDB's clock; `reason` holds no user's data.
    """

    reason: str
    since: Instant
    count: int
    until: Instant = 0


@dataclass(frozen=True, slots=True)
class Run:
    """One pass of one campaign at a fixed `as_of` (campaign time), cut into slices by hash.

    `after` is the `as_of` of the pass before it, where only those are looked for whom time has let in since (None: the
    whole audience). `path` is the access path that somebody asked for, or that was chosen at planning. `evaluation` is
    the campaign's `evaluation_wanted` when the run was made: decided as a whole, it has carried that evaluation out for
    those whom it reads. `failure` says why it could not be planned or closed.
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

    @property
    def evaluates_all(self) -> bool:
        """Whether it evaluates everybody who may enter, not only whom time has let in since another pass."""
        return self.kind in OF_EVERYBODY or (self.kind is RunKind.PASS and self.after is None)


@dataclass(frozen=True, slots=True)
class Slice:
    """The unit of dispatch and lease: a campaign and a range `[first, until)` of user suffixes.

    `cursor` is the last suffix (for due and stays slices: enrolment id) whose work is done; it moves after the work.
    `attempt` counts claims, `deaths` those that ended without a checkpoint while the slice was a suspect, `errors`
    those that raised. `token` names the lease of the present claim. A slice of candidates knows its `path` and what it
    looks behind (`after`). Slices that cut the whole hash space know how many they are (`of`).
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


@dataclass(frozen=True, slots=True)
class Waiting:
    """What the dispatcher knows of an open slice: whether it is held or rung, and whether its time has come.

    `broken_for` is how long ago (ms) a batch of it was broken off, by a death or an exception, where no holder has come
    as far as a checkpoint since. `failure` is what was raised since then.
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


@dataclass(frozen=True, slots=True)
class Expired:
    """A slice whose lease ran out: `progressed` tells whether it had a checkpoint since its claim."""

    slice: Slice
    token: str
    progressed: bool
