"""Steer a campaign: apply, launch, pause, resume, stop, cancel. Each is one compare-and-set on its state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Final

from engine.campaign.changes import Change, carry_aliases, changes, edit_faults
from engine.campaign.load import LoadedCampaign, campaign_from_spec
from engine.clock import Clock
from engine.domain.campaign import STAYS_TO_END, CampaignRecord, Plain
from engine.domain.lifecycle import GOING, LOOKED_AT, CampaignState, RunState
from engine.domain.work import AccessPath, RunKind
from engine.errors import InvalidSource, NotFound, WrongCall
from engine.pipeline.book import CampaignBook
from engine.pipeline.planning import Planning
from engine.pipeline.ports import CampaignStore, Doorbell, RunStore, SliceStore
from engine.telemetry.events import emit

_C: Final = CampaignState
EDITABLE: Final = frozenset({_C.DRAFT, _C.SCHEDULED, _C.LIVE, _C.PAUSED, _C.DRAINING})


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply did: the campaign as it is now, whether it is new, and what changed for those enrolled."""

    record: CampaignRecord
    created: bool
    changes: tuple[Change, ...]


class Steering:
    """Everything that a person does to a campaign."""

    def __init__(
        self,
        campaigns: CampaignStore,
        runs: RunStore,
        slices: SliceStore,
        book: CampaignBook,
        planning: Planning,
        bell: Doorbell,
        clock: Clock,
    ) -> None:
        self._campaigns = campaigns
        self._runs = runs
        self._slices = slices
        self._book = book
        self._planning = planning
        self._bell = bell
        self._clock = clock

    def named(self, name: str, workspace: str | None = None) -> CampaignRecord:
        """The campaign of that name. Raises `NotFound`, or `WrongCall` where several workspaces have one."""
        found = self._campaigns.named(name, workspace)
        if not found:
            raise NotFound(f"there is no campaign {name}", remedy="tidegate campaign list shows them")
        if len(found) > 1:
            names = ", ".join(record.workspace for record in found)
            raise WrongCall(f"several workspaces have a campaign {name}: {names}", remedy="name one with --workspace")
        return found[0]

    def apply(self, loaded: LoadedCampaign, *, dry_run: bool = False) -> Applied:
        """Apply a campaign file: the first revision, or the next; with `dry_run` only say what it would do.

        Raises `InvalidSource` for an edit that is refused, `WrongCall` for a campaign that has ended.
        """
        file = loaded.file
        found = self._campaigns.named(file.campaign, file.workspace)
        if not found:
            record = self._record(loaded, token_hex(6), 1)
            if not dry_run and not self._campaigns.apply(record):
                raise WrongCall(f"{file.campaign} was applied by somebody else meanwhile", remedy="apply it again")
            return self._told(Applied(record, True, ()), dry_run)
        before = found[0]
        if before.state not in EDITABLE:
            raise WrongCall(f"campaign {before.name} is {before.state}", remedy="give the file another campaign: name")
        old = campaign_from_spec(_spec(before), self._book.catalogue(before.workspace)).file
        if before.state is not _C.DRAFT:
            faults = edit_faults(old, file, loaded.node, _aliases(before))
            if faults:
                raise InvalidSource(faults)
        told = tuple(changes(old, file))
        if not told and old.spec() == file.spec():
            return Applied(before, False, ())
        record = self._record(loaded, before.uid, before.revision + 1)
        record = replace(
            record,
            state=before.state,
            kind=before.kind if before.state is not _C.DRAFT else record.kind,
            renamed=carry_aliases(_aliases(before), old, file),
        )
        if dry_run:
            return Applied(record, False, told)
        if not self._campaigns.apply(record):
            raise WrongCall(f"{file.campaign} was edited by somebody else meanwhile", remedy="apply it again")
        if before.state in GOING:
            now = self._clock.campaign_now()
            self._planning.start(record, RunKind.STAYS, now, anew=True)  # those enrolled are looked at once
            if record.intake_open:
                self._planning.start(record, RunKind.PASS, now, anew=True)  # and whoever the new audience lets in
            self._bell.ring()
        return self._told(Applied(record, False, told), dry_run)

    def _told(self, applied: Applied, dry_run: bool) -> Applied:
        if not dry_run:
            self._emit("applied", applied.record, revision=applied.record.revision)
        return applied

    def _record(self, loaded: LoadedCampaign, uid: str, revision: int) -> CampaignRecord:
        file = loaded.file
        spec: Plain = loaded.spec  # type: ignore[assignment]  # a dump of the model holds plain values only
        return CampaignRecord(
            uid=uid,
            workspace=file.workspace,
            name=file.campaign,
            kind=file.kind.value,
            state=_C.DRAFT,
            revision=revision,
            spec=spec,
            cost=loaded.cost.value,
            profile=file.profile,
            starts_at=file.starts_at,
            ends_at=file.ends_at,
        )

    def launch(self, record: CampaignRecord, *, path: AccessPath | None = None) -> CampaignRecord:
        """Launch a draft: it goes live at its start, at the next tick where that has come.

        `path` is the access path that its launch is to take; the planner chooses where none is asked for.
        """
        moved = self._move(record, _C.SCHEDULED, path=None if path is None else path.value)
        self._emit("launched", moved)
        return moved

    def pause(self, record: CampaignRecord) -> CampaignRecord:
        """Pause: nothing is decided or sent from the next batch on."""
        moved = self._move(record, _C.PAUSED, resume_to=record.state.value)
        self._emit("paused", moved)
        return moved

    def resume(self, record: CampaignRecord) -> CampaignRecord:
        """Resume: passes and due runs that nobody works on are dropped, and a new pass looks at everybody again.

        A launch run keeps its slices and its `as_of`; while it goes on, it is the pass. Inactivity counts from now.
        """
        if record.state is not _C.PAUSED or record.resume_to is None:
            raise WrongCall(f"campaign {record.name} is {record.state}, not paused")
        for run in self._runs.undecided([record.uid]):
            if run.kind is RunKind.LAUNCH:
                continue
            self._slices.drop_unclaimed(run.id)
            if not self._slices.has_open(run.id) and self._runs.move(run, RunState.DROPPED):
                labels = {"workspace": run.workspace, "campaign": record.name, "campaign_uid": run.campaign}
                emit("run.dropped", **labels, run=run.id, reason="resumed")
        now = self._clock.campaign_now()
        if all(run.kind in (RunKind.DUE, RunKind.IDLE) for run in self._runs.undecided([record.uid])):
            entering = replace(record, state=record.resume_to).intake_open
            self._planning.start(record, RunKind.RESUME if entering else RunKind.STAYS, now, anew=True)
        moved = self._move(record, record.resume_to, resume_to=None, resumed_at=now)
        self._emit("resumed", moved)
        return moved

    def stop(self, record: CampaignRecord) -> CampaignRecord:
        """Stop: nobody enters any more, those inside go on to their end."""
        moved = self._move(record, _C.DRAINING)
        self._emit("stopped", moved)
        return moved

    def cancel(self, record: CampaignRecord) -> CampaignRecord:
        """Cancel: every stay exits, and what is queued is skipped. It is one write; the next tick sees to the stays."""
        inside = record.state in LOOKED_AT or record.state is _C.PAUSED
        moved = self._move(record, _C.CANCELLED, **({"pass_as_of": STAYS_TO_END} if inside else {}))
        self._emit("cancelled", moved)
        return moved

    def reopen(self, record: CampaignRecord) -> CampaignRecord:
        """A finished campaign drains again: a failed delivery is replayed."""
        return record if record.state is not _C.FINISHED else self._move(record, _C.DRAINING, finished_at=None)

    def _move(self, record: CampaignRecord, state: CampaignState, **fields: object) -> CampaignRecord:
        """Raises `IllegalTransition` where the state does not allow it, `WrongCall` where another came first."""
        if not self._campaigns.move(record, state, **fields):
            raise WrongCall(f"the state of campaign {record.name} changed meanwhile", remedy="look at it and try again")
        self._bell.ring()
        return self._campaigns.get(record.uid) or record

    def _emit(self, what: str, record: CampaignRecord, **more: object) -> None:
        emit(
            f"campaign.{what}",
            workspace=record.workspace,
            campaign=record.name,
            campaign_uid=record.uid,
            state=record.state.value,
            **more,
        )


def _spec(record: CampaignRecord) -> dict[str, object]:
    return dict(record.spec) if isinstance(record.spec, dict) else {}


def _aliases(record: CampaignRecord) -> dict[str, tuple[str, ...]]:
    return {name: tuple(names) for name, names in record.renamed.items()}
