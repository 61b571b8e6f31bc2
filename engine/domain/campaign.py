"""A campaign record: the campaign's state and its current revision. The campaign file itself is a plain tree."""

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
    """The facts that a worker reads before each batch: state, revision and the last evaluation wanted."""

    state: CampaignState
    revision: int
    evaluation_wanted: int = 0


FOR_EVER: Final = 1 << 62
"""`converting_until` of a campaign whose goal has no window; it lies after every instant."""

LATE: Final = 30 * 86_400_000
"""Milliseconds after the last goal window of an ended campaign in which a late event may still arrive and count."""


class Marks(NamedTuple):
    """The state of a campaign and the progress marks of its passes; see `CampaignRecord` for each field."""

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
class Slowness:
    """The latest verdict that moved a campaign to its slow lane or back, at `since` (system time, ms).

    `p50` and `p95` are seconds a user over the last `batches` batches of all processes, which read by `query`; `limit`
    is what the profile allowed.
    """

    since: Instant
    batches: int
    p50: float
    p95: float
    limit: float
    query: str

    @property
    def text(self) -> str:
        """The evidence as one line."""
        return (
            f"p95 {self.p95 * 1e3:.3g} ms a user over {self.batches} batches by {self.query} (p50 {self.p50 * 1e3:.3g} "
            f"ms), the profile allows {self.limit * 1e3:.3g} ms"
        )


@dataclass(frozen=True, slots=True)
class CampaignRecord:
    """One campaign. Instants are campaign time.

    `uid` is assigned at the first apply and never changes; keys contain it. `revision` rises with each edit.
    `pass_as_of` is the `as_of` of the last planned pass, `crossed_to` that of the last decided pass, and
    `reconciled_at` that of the last full pass. `resumed_at` is the last resume (0: never). A resume returns the
    campaign to the state `resume_to`.

    Each edit, resume or cancel of a launched campaign requires a new evaluation of its users. These commands are
    numbered: `evaluation_wanted` is the number of the last such command. `everybody_wanted` is the number of the last
    one that wants all users evaluated, including those who have left (a resume). `left_wanted` is the number of the
    last one that wants those who have left evaluated (an edit of the goal, or a file that fits its workspace again).
    Runs carry these evaluations out and record the number up to which they are complete: `enrolled_done` for all
    enrolled users, `intake_done` for everybody else, and `left_done` for those who have left.

    `accepted` counts the failed and ended deliveries at the last resume. The person who resumed has accepted them, so
    the error budget counts only later ones. `renamed` maps each message to its earlier names. `stuck_by` gives, for
    each kind of obstacle, why the campaign cannot go on by itself. `paused_reason` names who or what paused it.
    `slowed` is True if the campaign was measured to be slow, and `slowness` is the last verdict. `shapes` gives the
    types of the fields and events that the file names, as they were when it was applied. `converting_until` is set on
    an ended campaign while conversions are still counted in it: the last goal window closes at that instant at the
    latest (`FOR_EVER`: the goal has no window). `endings` counts how often it finished or was cancelled: a replay
    reopens a finished campaign, which then finishes once more.
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
    slowness: Slowness | None = None
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
    endings: int = 0

    @property
    def marks(self) -> Marks:
        """The state and progress marks of this campaign."""
        return Marks(*(getattr(self, name) for name in Marks._fields))

    @property
    def stuck(self) -> str | None:
        """All reasons why the campaign cannot go on by itself, joined into one text; None if there is none."""
        return "; ".join(dict.fromkeys(stuck.reason for stuck in self.stuck_by.values())) or None

    @property
    def intake_open(self) -> bool:
        """Whether users may enter at any time: a live continuous campaign. A one-off takes users at launch only."""
        return self.state is CampaignState.LIVE and self.kind == CONTINUOUS

    @property
    def enrolled_owed(self) -> bool:
        """Whether a command requires an evaluation of the enrolled users that is not complete yet."""
        return self.enrolled_done < self.evaluation_wanted

    @property
    def intake_owed(self) -> bool:
        """Whether a command requires an evaluation of the users who are not enrolled that is not complete yet."""
        return self.intake_open and self.intake_done < self.evaluation_wanted

    @property
    def evaluation_owed(self) -> bool:
        """Whether a command requires an evaluation that no run has fully carried out yet."""
        return self.enrolled_owed or self.intake_owed or self.left_owed

    @property
    def left_owed(self) -> bool:
        """Whether a command requires an evaluation of users who have left (new goal), and it is not complete yet."""
        return self.left_done < self.left_wanted

    @property
    def budget_from(self) -> tuple[int, Ends]:
        """What the error budget counts from: it changes with each resume, and when failures are taken back."""
        return self.everybody_wanted, self.accepted

    @property
    def converting(self) -> bool:
        """Whether the campaign has ended and conversions are still counted in it."""
        return self.converting_until is not None and self.state in (CampaignState.FINISHED, CampaignState.CANCELLED)

    @property
    def closed(self) -> bool:
        """Whether the campaign has ended, no conversion is counted in it, and no command requires an evaluation."""
        ended = self.state in (CampaignState.FINISHED, CampaignState.CANCELLED)
        return ended and not self.converting and not self.evaluation_owed

    @property
    def concerned(self) -> bool:
        """Whether a change of a user requires an evaluation: while the campaign runs, is paused, or is converting."""
        return self.state in GOING or self.state is CampaignState.PAUSED or self.converting
