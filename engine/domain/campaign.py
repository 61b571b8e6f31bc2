"""A campaign as it is kept: its state and its present revision; the file itself is a plain tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from engine.clock import Instant
from engine.domain.counts import NONE, Ends
from engine.domain.lifecycle import GOING, CampaignState
from engine.domain.stuck import Stuck, StuckBy
from engine.domain.work import AccessPath

Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"

ONE_OFF = "one_off"
CONTINUOUS = "continuous"


class Standing(NamedTuple):
    """What a worker asks of a campaign at each batch: its state, its revision, and the evaluation that is wanted."""

    state: CampaignState
    revision: int
    evaluation_wanted: int = 0


FOR_EVER: Final = 1 << 62
"""`converting_until` of a campaign whose goal has no window: past every instant."""

LATE: Final = 30 * 86_400_000
"""Milliseconds after the last goal window of an ended campaign within which an event may still arrive and count."""


class Marks(NamedTuple):
    """Where a campaign stands, and up to where it was passed; see `CampaignRecord`."""

    state: CampaignState
    revision: int
    pass_as_of: Instant
    crossed_to: Instant
    reconciled_at: Instant
    evaluation_wanted: int = 0
    enrolled_done: int = 0
    intake_done: int = 0
    left_done: int = 0


@dataclass(frozen=True, slots=True)
class CampaignRecord:
    """One campaign. Instants are campaign time.

    `uid` is given at the first apply and never changes; keys use it. `revision` rises with each edit. `pass_as_of` is
    the `as_of` of the last pass that was planned, `crossed_to` of the last one that is decided, `reconciled_at` of the
    last look at everybody, `resumed_at` the last resume (0: never), `resume_to` the state that a resume leads back to.

    Each edit, resume or cancel of a launched campaign makes it necessary to evaluate users anew: `evaluation_wanted` is
    the number of the last such command, `everybody_wanted` of the last one that wants all users evaluated, also those
    who have left (a resume), `left_wanted` of the last one that wants those who have left evaluated (an edit of the
    goal, or a file that fits its workspace again). Runs carry these evaluations out: `enrolled_done` is the number up
    to which all who are enrolled were evaluated, `intake_done` up to which everybody else was, `left_done` up to which
    those were who have left.

    `accepted` are the failed and ended deliveries that stood at the last resume: a person has accepted them, and the
    error budget counts from there on. `renamed` gives for a message the names that it had before. `stuck_by` says why
    the campaign cannot go on by itself, by what keeps it; `paused_reason` who or what paused it. `slowed` tells that it
    was measured to be slow. `shapes` gives the types of the fields and events that its file names, as they were when it
    was applied. `converting_until` stands in a campaign that has ended as long as conversions are counted in it: where
    the last goal window closes at the latest (`FOR_EVER`: the goal has no window).
    """

    uid: str
    workspace: str
    name: str
    kind: str
    state: CampaignState
    revision: int
    spec: Plain
    cost: str = "quick"
    profile: str | None = None
    starts_at: Instant | None = None
    ends_at: Instant | None = None
    launched_at: Instant | None = None
    resumed_at: Instant = 0
    resume_to: CampaignState | None = None
    pass_as_of: Instant = 0
    crossed_to: Instant = 0
    reconciled_at: Instant = 0
    finished_at: Instant | None = None
    converting_until: Instant | None = None
    stuck_by: Mapping[StuckBy, Stuck] = field(default_factory=dict)
    paused_reason: str | None = None
    slowed: bool = False
    path: AccessPath | None = None
    renamed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    evaluation_wanted: int = 0
    everybody_wanted: int = 0
    left_wanted: int = 0
    enrolled_done: int = 0
    intake_done: int = 0
    left_done: int = 0
    shapes: Mapping[str, str] = field(default_factory=dict)
    accepted: Ends = NONE

    @property
    def marks(self) -> Marks:
        """Where it stands."""
        return Marks(*(getattr(self, name) for name in Marks._fields))

    @property
    def stuck(self) -> str | None:
        """Every reason why it cannot go on by itself, in one text; None where there is none."""
        return "; ".join(dict.fromkeys(one.reason for one in self.stuck_by.values())) or None

    @property
    def intake_open(self) -> bool:
        """Whether users may enter: a continuous campaign while it is live, a one-off one at its launch only."""
        return self.state is CampaignState.LIVE and self.kind == CONTINUOUS

    @property
    def enrolled_owed(self) -> bool:
        """Whether those who are enrolled are still to be evaluated after a command."""
        return self.enrolled_done < self.evaluation_wanted

    @property
    def intake_owed(self) -> bool:
        """Whether those who are not enrolled are still to be evaluated after a command."""
        return self.intake_open and self.intake_done < self.evaluation_wanted

    @property
    def evaluation_owed(self) -> bool:
        """Whether a command made an evaluation necessary that no run has carried out as a whole."""
        return self.enrolled_owed or self.intake_owed or self.left_owed

    @property
    def left_owed(self) -> bool:
        """Whether those who have left are still to be evaluated for another goal."""
        return self.left_done < self.left_wanted

    @property
    def converting(self) -> bool:
        """Whether it has ended and conversions are still counted in it."""
        return self.converting_until is not None and self.state in (CampaignState.FINISHED, CampaignState.CANCELLED)

    @property
    def concerned(self) -> bool:
        """Whether a change of a user brings an evaluation: while it runs or stands still, and while it converts."""
        return self.state in GOING or self.state is CampaignState.PAUSED or self.converting
