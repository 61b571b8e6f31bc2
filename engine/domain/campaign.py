"""A campaign as it is kept: its state and its present revision; the file itself is a plain tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from engine.clock import Instant
from engine.domain.lifecycle import CampaignState
from engine.domain.work import AccessPath

Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"

ONE_OFF = "one_off"
CONTINUOUS = "continuous"

STAYS_TO_END = -1
"""`pass_as_of` of a campaign that was cancelled with stays in it, until the run that ends them is written."""


class Marks(NamedTuple):
    """Where a campaign stands, and up to where it was passed; see `CampaignRecord`."""

    state: CampaignState
    revision: int
    pass_as_of: Instant
    crossed_to: Instant
    reconciled_at: Instant


@dataclass(frozen=True, slots=True)
class CampaignRecord:
    """One campaign. Instants are campaign time.

    `uid` is given at the first apply and never changes; keys use it. `revision` rises with each edit. `pass_as_of` is
    the `as_of` of the last pass that was planned, `crossed_to` of the last one that is decided, `reconciled_at` of the
    last look at everybody, `resumed_at` the last resume (0: never), `resume_to` the state that
    a resume leads back to. `renamed` gives for a message the names that it had before. `stuck` says why the campaign
    cannot finish, where something is stuck. `slowed` tells that it was measured to be slow.
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
    stuck: str | None = None
    slowed: bool = False
    path: AccessPath | None = None
    renamed: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def marks(self) -> Marks:
        """Where it stands."""
        return Marks(self.state, self.revision, self.pass_as_of, self.crossed_to, self.reconciled_at)

    @property
    def intake_open(self) -> bool:
        """Whether users may enter: a continuous campaign while it is live, a one-off one at its launch only."""
        return self.state is CampaignState.LIVE and self.kind == CONTINUOUS
