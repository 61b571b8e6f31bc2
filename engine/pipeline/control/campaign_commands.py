"""Steer a campaign: apply, launch, pause, resume, stop, cancel. Each command is one compare-and-set on its state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Final

from engine.campaign.changes import Change, Concern, carry_aliases, changes, edit_faults, snippet_changes
from engine.campaign.load import TEXTS, LoadedCampaign, file_from_spec
from engine.clock import Clock
from engine.domain.campaign import CampaignRecord, Plain
from engine.domain.counts import Ends
from engine.domain.keys import enrolment_prefix
from engine.domain.lifecycle import CampaignState
from engine.domain.refusals import check_move, refusal
from engine.domain.template import kept_texts
from engine.domain.work import AccessPath
from engine.errors import InvalidSource, WrongCall
from engine.pipeline.campaigns.compiled_cache import CampaignCache, with_shapes
from engine.pipeline.campaigns.find_campaign import find_campaign
from engine.pipeline.control.check_rendering import check_rendering
from engine.pipeline.ports.campaigns import CampaignStore
from engine.pipeline.ports.enrolments import EnrolmentCounts
from engine.pipeline.ports.feed import FeedStore
from engine.pipeline.ports.messaging import Wakeup
from engine.pipeline.scheduler.conversion_window import ends_at_once
from engine.predicate.tree import EVERYBODY, plain
from engine.telemetry.events import emit

_C: Final = CampaignState
BY_HAND: Final = "by hand (tidegate campaign pause)"
"""The pause reason when a person pauses a campaign without giving one."""

INSIDE: Final = frozenset({_C.LIVE, _C.PAUSED, _C.DRAINING})
"""States in which a campaign may have enrolled users: an edit or a cancel requires a new evaluation of them."""

TRIES: Final = 5
"""Attempts at a command when a concurrent write that does not conflict with it comes first."""

EDITABLE: Final = frozenset({_C.DRAFT, _C.SCHEDULED, _C.LIVE, _C.PAUSED, _C.DRAINING})


@dataclass(frozen=True, slots=True)
class Applied:
    """The result of an apply: the campaign as it is now, whether it is new, and the changes that affect enrolled users.

    `warnings` lists texts that fail for some users; `apply` refuses texts that fail for all users.
    """

    record: CampaignRecord
    created: bool
    changes: tuple[Change, ...]
    warnings: tuple[str, ...] = ()


class CampaignCommands:
    """The commands by which a person steers a campaign."""

    def __init__(
        self,
        campaigns: CampaignStore,
        campaign_cache: CampaignCache,
        wakeup: Wakeup,
        clock: Clock,
        counts: EnrolmentCounts,
        feed: FeedStore,
    ) -> None:
        self._feed = feed
        self._counts = counts
        self._campaigns = campaigns
        self._campaign_cache = campaign_cache
        self._wakeup = wakeup
        self._clock = clock

    def named(self, name: str, workspace: str | None = None) -> CampaignRecord:
        """Return the campaign with this name. Raises `NotFound`, or `WrongCall` if several workspaces have one."""
        return find_campaign(self._campaigns, name, workspace)

    def apply(self, loaded: LoadedCampaign, *, dry_run: bool = False) -> Applied:
        """Apply a campaign file as the first or the next revision; `dry_run` only reports what an apply would do.

        One write stores the revision and, for a launched campaign, requests a new evaluation of its users. Raises
        `InvalidSource` if it refuses the edit, `WrongCall` if the campaign has ended or was edited concurrently.
        """
        rendered = check_rendering(loaded, self._clock.campaign_now())
        if rendered.faults:
            raise InvalidSource(rendered.faults)
        return replace(self._applied(loaded, dry_run=dry_run), warnings=tuple(rendered.warnings))

    def _applied(self, loaded: LoadedCampaign, *, dry_run: bool) -> Applied:
        file, everybody = loaded.file, plain(loaded.audience) == EVERYBODY
        for _ in range(TRIES):
            records = self._campaigns.named(file.campaign, file.workspace)
            if not records:
                record = self._record(loaded, token_hex(6), 1)
                if not dry_run and not self._campaigns.apply(record):
                    break
                return self._announced(Applied(record, True, ()), dry_run, everybody=everybody)
            applied = self._edited(loaded, records[0])
            if dry_run or applied.record is records[0]:
                return applied
            if self._campaigns.apply(applied.record, evaluate=records[0].state in INSIDE):
                self._wakeup.ring()
                return self._announced(applied, dry_run, everybody=everybody)
            now = self._campaigns.get(records[0].uid)
            if now is None or now.revision != records[0].revision:
                # A concurrent edit ends the retries; after a concurrent pause, resume or end, judge the edit again.
                break
        raise WrongCall(f"campaign {file.campaign} was edited concurrently", remedy="apply it again")

    def _edited(self, loaded: LoadedCampaign, before: CampaignRecord) -> Applied:
        """Return the next revision, or the present one if nothing changes."""
        file = loaded.file
        if before.state not in EDITABLE:
            raise WrongCall(f"campaign {before.name} is {before.state}", remedy="give the file another campaign: name")
        old = file_from_spec(_spec(before))
        if before.state is not _C.DRAFT:
            faults = edit_faults(old, file, loaded.node, _aliases(before))
            if faults:
                raise InvalidSource(faults)
        record = self._record(loaded, before.uid, before.revision + 1)
        edit = (
            *changes(old, file),
            *snippet_changes(kept_texts(_spec(before).get(TEXTS)), loaded.texts),
            *_retyped(before, record),
        )
        if not edit and old.spec() == file.spec():
            return Applied(before, False, ())
        record = replace(
            record,
            state=before.state,
            kind=before.kind if before.state is not _C.DRAFT else record.kind,
            renamed=carry_aliases(_aliases(before), old, file),
            evaluation_wanted=before.evaluation_wanted + (before.state in INSIDE),
            left_wanted=before.left_wanted,
        )
        if before.state in INSIDE and old.goal != file.goal:  # users who have left may have reached the new goal
            record = replace(record, left_wanted=record.evaluation_wanted)
        return Applied(record, False, edit)

    def _announced(self, applied: Applied, dry_run: bool, *, everybody: bool) -> Applied:
        if not dry_run:
            self._emit("applied", applied.record, revision=applied.record.revision)
            if not everybody:  # Elasticsearch must hold the users by the time of the launch
                self._feed.ask_search(applied.record.workspace)
        return applied

    def _record(self, loaded: LoadedCampaign, uid: str, revision: int) -> CampaignRecord:
        file = loaded.file
        spec: Plain = loaded.spec  # type: ignore[assignment]  # a dump of the model holds plain values only
        record = CampaignRecord(
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
        return with_shapes(record, loaded)

    def launch(self, record: CampaignRecord, *, path: AccessPath | None = None) -> CampaignRecord:
        """Launch a draft: it goes live at its start time, or at the next tick if that has passed.

        `path` sets the access path of the launch run; without it the planner chooses one.
        """
        moved = self._move(record, _C.SCHEDULED, path=None if path is None else path.value)
        self._emit("launched", moved)
        return moved

    def pause(self, record: CampaignRecord, reason: str = BY_HAND) -> CampaignRecord:
        """Pause a campaign: from the next batch on, nothing is decided or sent. Every view of it shows `reason`."""
        moved = self._move(record, _C.PAUSED, resume_to=record.state.value, paused_reason=reason)
        self._emit("paused", moved, reason="by_hand")
        return moved

    def resume(self, record: CampaignRecord) -> CampaignRecord:
        """Resume a campaign with one write; at the next tick the clock plans a run that evaluates everybody.

        The clock drops the unclaimed slices of passes and due runs from before the pause. A launch run keeps its slices
        and its `as_of`. Inactivity and the error budget count from now: the person who resumes accepts the failures so
        far.
        """
        if record.state is not _C.PAUSED or record.resume_to is None:
            raise refusal(record, "resumed")
        moved = self._resumed(record, record.resume_to)
        self._emit("resumed", moved)
        return moved

    def stop(self, record: CampaignRecord) -> CampaignRecord:
        """Stop the intake of a live or paused campaign: nobody enters any more, enrolled users go on to their end."""
        if record.state is _C.FINISHED:  # a finished campaign drains again only for a replay, never because of a stop
            raise refusal(record, "stopped")
        moved = self._resumed(record, _C.DRAINING) if record.state is _C.PAUSED else self._move(record, _C.DRAINING)
        self._emit("stopped", moved)
        return moved

    def _resumed(self, record: CampaignRecord, state: CampaignState) -> CampaignRecord:
        return self._move(
            record,
            state,
            evaluate=True,
            everybody=True,
            resume_to=None,
            resumed_at=self._clock.campaign_now(),
            accepted=self._ends(record)._asdict(),
        )

    def _ends(self, record: CampaignRecord) -> Ends:
        return self._counts.of(enrolment_prefix(record.workspace, record.uid)).ends

    def cancel(self, record: CampaignRecord) -> CampaignRecord:
        """Cancel a campaign with one write: every enrolment exits, and queued deliveries are skipped.

        The clock ends the enrolments from the next tick on. Conversions of the enrolled users count until their goal
        windows close.
        """
        inside = record.state in INSIDE
        until = ends_at_once(record, self._clock.campaign_now()) if inside else None
        moved = self._move(record, _C.CANCELLED, evaluate=inside, converting_until=until)
        self._emit("cancelled", moved)
        return moved

    def replayed(self, record: CampaignRecord) -> None:
        """Count repeated failures of replayed deliveries towards the error budget again: accept fewer of them."""
        if record.accepted.ended:
            self._campaigns.accept_fewer(record.uid, self._ends(record))

    def reopen(self, record: CampaignRecord) -> CampaignRecord:
        """Let a finished campaign drain again, because a failed delivery is replayed."""
        return record if record.state is not _C.FINISHED else self._move(record, _C.DRAINING, finished_at=None)

    def _move(
        self,
        record: CampaignRecord,
        state: CampaignState,
        *,
        evaluate: bool = False,
        everybody: bool = False,
        **fields: object,
    ) -> CampaignRecord:
        """Move to `state`; `evaluate` requests an evaluation of the enrolled users, `everybody` of all users.

        Raises `IllegalTransition` if the state does not allow the move, `WrongCall` if a concurrent command came first.
        """
        check_move(record, state)
        before = record
        for _ in range(TRIES):
            number = before.evaluation_wanted + 1
            counters = {"evaluation_wanted": number} if evaluate else {}
            counters |= {"everybody_wanted": number} if everybody else {}
            if self._campaigns.move(before, state, exactly=evaluate, **counters, **fields):
                self._wakeup.ring()
                return self._campaigns.get(record.uid) or record
            now = self._campaigns.get(record.uid)
            if now is None or now.state is not record.state:
                break
            before = now  # a concurrent edit came first
        raise WrongCall(
            f"campaign {record.name} changed state concurrently",
            remedy=f"run tidegate campaign show {record.name}, then retry",
        )

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


def _retyped(before: CampaignRecord, after: CampaignRecord) -> Iterator[Change]:
    """Yield the fields and events whose types differ from those at the last apply of the campaign."""
    for name, shape in after.shapes.items():
        known = before.shapes.get(name)
        if known is not None and known != shape:
            yield Change(Concern.WORKSPACE, f"{name} is {shape} now, it was {known}")


def _aliases(record: CampaignRecord) -> dict[str, tuple[str, ...]]:
    return {name: tuple(names) for name, names in record.renamed.items()}
