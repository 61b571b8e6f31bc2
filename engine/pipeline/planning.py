"""Plan a run: cut it into slices with deterministic ids, so that planning it twice gives the same slices."""

from __future__ import annotations

from typing import Final

from engine.clock import Clock, Instant
from engine.domain.campaign import CampaignRecord
from engine.domain.keys import HIGHEST, cut, stay_prefix
from engine.domain.lifecycle import RunState
from engine.domain.work import SLICE_OF_RUN, Run, RunKind, Slice, SliceKind
from engine.failpoints import passage
from engine.pipeline.book import CampaignBook
from engine.pipeline.ports import CampaignStore, Doorbell, RunStore, SliceStore, StayStore, UserReads
from engine.telemetry.events import emit

MOST_DUE: Final = 100_000
"""Due stays that one run takes up; the next run takes the rest, so that one burst does not fill a worker's memory."""

MOST_PIECES: Final = 4_096
"""Slices of one run: with 20,000 users each that is 80 million users."""

ESTIMATE_KEPT: Final = 60.0
"""Seconds for which an estimate of a workspace's users is good enough to cut by."""


class Planning:
    """The use case behind the actor `plan_run`, and what makes runs."""

    def __init__(
        self,
        runs: RunStore,
        slices: SliceStore,
        campaigns: CampaignStore,
        stays: StayStore,
        users: UserReads,
        book: CampaignBook,
        bell: Doorbell,
        clock: Clock,
    ) -> None:
        self._runs = runs
        self._slices = slices
        self._campaigns = campaigns
        self._stays = stays
        self._users = users
        self._book = book
        self._bell = bell
        self._clock = clock
        self._estimates: dict[str, tuple[float, int]] = {}

    def start(self, record: CampaignRecord, kind: RunKind, as_of: Instant, *, anew: bool = False) -> Run:
        """Write a run to be planned; one that exists is given as it is.

        A campaign has one launch run, one pass at an `as_of`, and any number of due runs at it; with `anew` (an edit, a
        resume, a cancel, which may come twice while campaign time stands) also further passes.
        """
        name = "launch/1" if kind is RunKind.LAUNCH else f"{kind.value}/{as_of:015d}"
        if kind is RunKind.DUE or anew:
            name += f"/{self._runs.count(record.uid, kind, as_of) + 1:04d}"
        run = Run(
            id=f"{stay_prefix(record.workspace, record.uid)}{name}",
            workspace=record.workspace,
            campaign=record.uid,
            kind=kind,
            as_of=as_of,
            state=RunState.PLANNING,
            pieces=1 if kind is RunKind.DUE else self.pieces(record),
        )
        if self._runs.add(run):
            passage("run.started")
            return run
        return self._runs.get(run.id) or run

    def pieces(self, record: CampaignRecord) -> int:
        """Into how many slices the users of a campaign's workspace are cut, by its profile's `slice_users`."""
        kept = self._estimates.get(record.workspace)
        if kept is None or self._clock.monotonic() - kept[0] > ESTIMATE_KEPT:
            kept = (self._clock.monotonic(), self._users.estimate(record.workspace))
            self._estimates[record.workspace] = kept
        return max(1, min(MOST_PIECES, -(-kept[1] // self._book.profile(record).slice_users)))

    def run(self, run_id: str) -> bool:
        """Cut a run into slices; safe to call twice, late, or for a run that is gone. Gives whether it has none."""
        run = self._runs.get(run_id)
        record = None if run is None else self._campaigns.get(run.campaign)
        if run is None or record is None or run.state is not RunState.PLANNING:
            return False
        pieces = self._due(run, record) if run.kind is RunKind.DUE else self._by_hash(run)
        self._slices.add(pieces)
        passage("plan.sliced")
        if self._runs.move(run, RunState.RUNNING):
            emit(
                "run.planned",
                workspace=run.workspace,
                campaign=record.name,
                campaign_uid=run.campaign,
                run=run.id,
                kind=run.kind.value,
                as_of=run.as_of,
                slices=len(pieces),
            )
        self._bell.ring()
        return not pieces

    def _by_hash(self, run: Run) -> list[Slice]:
        """The whole hash space, cut without a query."""
        return [_piece(run, i, first, until) for i, (first, until) in enumerate(cut(run.pieces))]

    def _due(self, run: Run, record: CampaignRecord) -> list[Slice]:
        """The ranges in which stays are due, read covered and sorted by key."""
        prefix = stay_prefix(run.workspace, run.campaign)
        due = self._stays.due_ids(run.campaign, run.as_of, MOST_DUE)
        if not due:
            return []  # another run has looked at them meanwhile
        size = self._book.profile(record).slice_users
        firsts = [due[i].removeprefix(prefix).rsplit("/", 1)[0] for i in range(0, len(due), size)]
        last = due[-1].removeprefix(prefix).rsplit("/", 1)[0] + "/" + HIGHEST
        return [
            _piece(run, i, first, until)
            for i, (first, until) in enumerate(zip(firsts, [*firsts[1:], last], strict=True))
        ]


def _piece(run: Run, number: int, first: str, until: str) -> Slice:
    kind: SliceKind = SLICE_OF_RUN[run.kind]
    return Slice(f"{run.id}/{number:04d}", run.id, run.workspace, run.campaign, kind, run.as_of, first, until)
