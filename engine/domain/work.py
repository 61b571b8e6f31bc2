"""Work as small documents: runs, slices and the leases they are held under."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from engine.clock import Instant
from engine.domain.lifecycle import RunState, SliceState


class RunKind(StrEnum):
    """Why a run was made, which also says what it reads."""

    LAUNCH = "launch"
    PASS = "pass"  # noqa: S105 - the field's word, no secret
    STAYS = "stays"
    DUE = "due"


class SliceKind(StrEnum):
    """What a slice reads and does."""

    AUDIENCE = "audience"
    STAYS = "stays"
    DUE = "due"
    DELIVER = "deliver"


SLICE_OF_RUN = {
    RunKind.LAUNCH: SliceKind.AUDIENCE,
    RunKind.PASS: SliceKind.AUDIENCE,
    RunKind.STAYS: SliceKind.STAYS,
    RunKind.DUE: SliceKind.DUE,
}


@dataclass(frozen=True, slots=True)
class Run:
    """One pass of one campaign at a fixed `as_of` (campaign time), cut into `pieces` slices by hash."""

    id: str
    workspace: str
    campaign: str
    kind: RunKind
    as_of: Instant
    state: RunState
    pieces: int = 1


@dataclass(frozen=True, slots=True)
class Slice:
    """The unit of dispatch and lease: a campaign and a range `[first, until)` of user suffixes.

    `cursor` is the last suffix (for due and stays slices: enrolment id) whose work is done; it moves after the work.
    `attempt` counts claims, `deaths` those that ended without a checkpoint while the slice was a suspect, `errors`
    those that raised. `token` names the lease of the present claim.
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


@dataclass(frozen=True, slots=True)
class Waiting:
    """What the dispatcher knows of an open slice: whether it is held or rung, and whether its time has come."""

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


@dataclass(frozen=True, slots=True)
class Expired:
    """A slice whose lease ran out: `progressed` tells whether it had a checkpoint since its claim."""

    slice: Slice
    token: str
    progressed: bool
