"""Steer a campaign: apply, launch, pause, resume, stop, cancel. Each is one compare-and-set on its state."""

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
from engine.domain.keys import stay_prefix
from engine.domain.lifecycle import CampaignState
from engine.domain.refusals import check_move, refusal
from engine.domain.template import kept_texts
from engine.domain.work import AccessPath
from engine.errors import InvalidSource, WrongCall
from engine.pipeline.book import CampaignBook, with_shapes
from engine.pipeline.campaign_lookup import find_campaign
from engine.pipeline.converting import ends_at_once
from engine.pipeline.ports import CampaignStore, Doorbell, StayCounts
from engine.pipeline.rendering_check import check_rendering
from engine.pipeline.sources import FeedStore
from engine.predicate.tree import EVERYBODY, plain
from engine.telemetry.events import emit

_C: Final = CampaignState
BY_HAND: Final = "by hand (tidegate campaign pause)"
"""Why a campaign is paused that a person paused without a word."""

INSIDE: Final = frozenset({_C.LIVE, _C.PAUSED, _C.DRAINING})
"""States in which users may be enrolled: an edit or a cancel makes it necessary to evaluate them anew."""

TRIES: Final = 5
"""Times that a command is given again where another one came first and does not stand in its way."""

EDITABLE: Final = frozenset({_C.DRAFT, _C.SCHEDULED, _C.LIVE, _C.PAUSED, _C.DRAINING})


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply did: the campaign as it is now, whether it is new, and what changed for those enrolled.

    `warnings` are texts that fail for some users; what fails for all of them is refused.
    """

    record: CampaignRecord
    created: bool
    changes: tuple[Change, ...]
    warnings: tuple[str, ...] = ()


class Steering:
    """Everything that a person does to a campaign."""

    def __init__(
        self,
        campaigns: CampaignStore,
        book: CampaignBook,
        bell: Doorbell,
        clock: Clock,
        counts: StayCounts,
        feed: FeedStore,
    ) -> None:
        self._feed = feed
        self._counts = counts
        self._campaigns = campaigns
        self._book = book
        self._bell = bell
        self._clock = clock

    def named(self, name: str, workspace: str | None = None) -> CampaignRecord:
        """The campaign of that name. Raises `NotFound`, or `WrongCall` where several workspaces have one."""
        return find_campaign(self._campaigns, name, workspace)

    def apply(self, loaded: LoadedCampaign, *, dry_run: bool = False) -> Applied:
        """Apply a campaign file: the first revision, or the next; with `dry_run` only say what it would do.

        One write, which also makes it necessary to evaluate the users of a launched campaign anew. Raises
        `InvalidSource` for an edit that is refused, `WrongCall` for a campaign that has ended.
        """
        rendered = check_rendering(loaded, self._clock.campaign_now())
        if rendered.faults:
            raise InvalidSource(rendered.faults)
        return replace(self._applied(loaded, dry_run=dry_run), warnings=tuple(rendered.warnings))

    def _applied(self, loaded: LoadedCampaign, *, dry_run: bool) -> Applied:
        file, everybody = loaded.file, plain(loaded.audience) == EVERYBODY
        for _ in range(TRIES):
            found = self._campaigns.named(file.campaign, file.workspace)
            if not found:
                record = self._record(loaded, token_hex(6), 1)
                if not dry_run and not self._campaigns.apply(record):
                    break
                return self._told(Applied(record, True, ()), dry_run, everybody=everybody)
            applied = self._edited(loaded, found[0])
            if dry_run or applied.record is found[0]:
                return applied
            if self._campaigns.apply(applied.record, evaluate=found[0].state in INSIDE):
                self._bell.ring()
                return self._told(applied, dry_run, everybody=everybody)
            now = self._campaigns.get(found[0].uid)
            if now is None or now.revision != found[0].revision:
                break  # not where it was paused, resumed or ended meanwhile: then the edit is judged again
        raise WrongCall(f"{file.campaign} was edited by somebody else meanwhile", remedy="apply it again")

    def _edited(self, loaded: LoadedCampaign, before: CampaignRecord) -> Applied:
        """The next revision; the present one where nothing is changed."""
        file = loaded.file
        if before.state not in EDITABLE:
            raise WrongCall(f"campaign {before.name} is {before.state}", remedy="give the file another campaign: name")
        old = file_from_spec(_spec(before))
        if before.state is not _C.DRAFT:
            faults = edit_faults(old, file, loaded.node, _aliases(before))
            if faults:
                raise InvalidSource(faults)
        record = self._record(loaded, before.uid, before.revision + 1)
        told = (
            *changes(old, file),
            *snippet_changes(kept_texts(_spec(before).get(TEXTS)), loaded.texts),
            *_retyped(before, record),
        )
        if not told and old.spec() == file.spec():
            return Applied(before, False, ())
        record = replace(
            record,
            state=before.state,
            kind=before.kind if before.state is not _C.DRAFT else record.kind,
            renamed=carry_aliases(_aliases(before), old, file),
            evaluation_wanted=before.evaluation_wanted + (before.state in INSIDE),
            left_wanted=before.left_wanted,
        )
        if before.state in INSIDE and old.goal != file.goal:  # those who left may have reached the new one
            record = replace(record, left_wanted=record.evaluation_wanted)
        return Applied(record, False, told)

    def _told(self, applied: Applied, dry_run: bool, *, everybody: bool) -> Applied:
        if not dry_run:
            self._emit("applied", applied.record, revision=applied.record.revision)
            if not everybody:  # Elasticsearch is to have the users when the campaign is launched
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
        """Launch a draft: it goes live at its start, at the next tick where that has come.

        `path` is the access path that its launch is to take; the planner chooses where none is asked for.
        """
        moved = self._move(record, _C.SCHEDULED, path=None if path is None else path.value)
        self._emit("launched", moved)
        return moved

    def pause(self, record: CampaignRecord, reason: str = BY_HAND) -> CampaignRecord:
        """Pause: nothing is decided or sent from the next batch on. `reason` is shown wherever the campaign is."""
        moved = self._move(record, _C.PAUSED, resume_to=record.state.value, paused_reason=reason)
        self._emit("paused", moved, reason="by_hand")
        return moved

    def resume(self, record: CampaignRecord) -> CampaignRecord:
        """Resume: everybody is evaluated anew, by a new run. It is one write; the next tick plans it.

        Of passes and due runs from before the pause it drops what nobody works on. A launch run keeps its slices and
        its `as_of`. Inactivity and the error budget count from now: who resumes it accepts what has failed.
        """
        if record.state is not _C.PAUSED or record.resume_to is None:
            raise refusal(record, "resumed")
        moved = self._resumed(record, record.resume_to)
        self._emit("resumed", moved)
        return moved

    def stop(self, record: CampaignRecord) -> CampaignRecord:
        """Stop: nobody enters any more, those inside go on to their end, also where it was paused."""
        if record.state is _C.FINISHED:  # it drains once more for a replay, not because it is stopped
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
        return self._counts.of(stay_prefix(record.workspace, record.uid)).ends

    def cancel(self, record: CampaignRecord) -> CampaignRecord:
        """Cancel: every stay exits, and what is queued is skipped. It is one write; the next tick sees to the stays.

        Conversions of those who were in it are counted until their goal windows close.
        """
        inside = record.state in INSIDE
        until = ends_at_once(record, self._clock.campaign_now()) if inside else None
        moved = self._move(record, _C.CANCELLED, evaluate=inside, converting_until=until)
        self._emit("cancelled", moved)
        return moved

    def replayed(self, record: CampaignRecord) -> None:
        """Failed deliveries are queued again: those that fail once more count towards the error budget again."""
        if record.accepted.ended:
            self._campaigns.accept_fewer(record.uid, self._ends(record))

    def reopen(self, record: CampaignRecord) -> CampaignRecord:
        """A finished campaign drains again: a failed delivery is replayed."""
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
        """Move to `state`; with `evaluate` the enrolled, with `everybody` all users are to be evaluated anew.

        Raises `IllegalTransition` where the state does not allow it, `WrongCall` where another came first.
        """
        check_move(record, state)
        before = record
        for _ in range(TRIES):
            number = before.evaluation_wanted + 1
            wanted = {"evaluation_wanted": number} if evaluate else {}
            wanted |= {"everybody_wanted": number} if everybody else {}
            if self._campaigns.move(before, state, exactly=evaluate, **wanted, **fields):
                self._bell.ring()
                return self._campaigns.get(record.uid) or record
            now = self._campaigns.get(record.uid)
            if now is None or now.state is not record.state:
                break
            before = now  # it was edited meanwhile
        raise WrongCall(f"the state of campaign {record.name} changed meanwhile", remedy="look at it and try again")

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
    """Fields and events whose values are read otherwise than when the campaign was applied last."""
    for name, shape in after.shapes.items():
        known = before.shapes.get(name)
        if known is not None and known != shape:
            yield Change(Concern.WORKSPACE, f"{name} is {shape} now, it was {known}")


def _aliases(record: CampaignRecord) -> dict[str, tuple[str, ...]]:
    return {name: tuple(names) for name, names in record.renamed.items()}
