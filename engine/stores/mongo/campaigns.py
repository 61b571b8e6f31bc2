"""Campaigns and their revisions. A state changes by compare-and-set on the state that was read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from pymongo import ASCENDING, IndexModel, ReturnDocument
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from engine.clock import Instant
from engine.domain.campaign import CampaignRecord, Marks, Slowness, Standing
from engine.domain.counts import NONE, Ends
from engine.domain.document import Document
from engine.domain.lifecycle import CampaignState, check_transition
from engine.domain.stuck import Stuck, StuckBy
from engine.domain.work import AccessPath
from engine.query_metrics import named_queries
from engine.stores.mongo.client import MAJORITY
from engine.stores.mongo.work_documents import without_none

INDEXES: Final = (
    IndexModel([("workspace", ASCENDING), ("name", ASCENDING)], name="name", unique=True),
    IndexModel([("state", ASCENDING)], name="state"),
    IndexModel([("touched", ASCENDING)], name="touched"),
    IndexModel(
        [("converting_until", ASCENDING)],
        name="converting",
        partialFilterExpression={"converting_until": {"$exists": True}},
    ),
)
_ENDED: Final = [CampaignState.FINISHED.value, CampaignState.CANCELLED.value]
REVISION_INDEXES: Final = (IndexModel([("campaign", ASCENDING), ("revision", ASCENDING)], name="revision"),)


@named_queries("campaigns")
class Campaigns:
    """The campaigns of all workspaces."""

    def __init__(self, database: Database[Document]) -> None:
        self._all: Collection[Document] = database.get_collection("campaigns", write_concern=MAJORITY)
        self._revisions: Collection[Document] = database.get_collection("campaign_revisions", write_concern=MAJORITY)

    def get(self, uid: str) -> CampaignRecord | None:
        """Return one campaign by its uid. Index: `_id`."""
        raw = self._all.find_one({"_id": uid})
        return None if raw is None else _record(raw)

    def state_of(self, uid: str) -> Standing | None:
        """Return state, revision and wanted evaluation, which a worker reads before each batch. Index: `_id`."""
        raw = self._all.find_one({"_id": uid}, dict.fromkeys(Standing._fields, 1))
        if raw is None:
            return None
        return Standing(CampaignState(raw["state"]), raw["revision"], raw.get("evaluation_wanted", 0))

    def named(self, name: str, workspace: str | None = None) -> list[CampaignRecord]:
        """Return the campaigns of a name, in one workspace or in all (this reads the whole index). Index: `name`."""
        query: Document = {"workspace": workspace} if workspace else {"workspace": {"$gte": ""}}
        return [_record(raw) for raw in self._all.find(query | {"name": name}, hint="name")]

    def in_states(self, states: Iterable[CampaignState]) -> list[CampaignRecord]:
        """Return every campaign in one of `states`, without its file. Index: `state`."""
        query = {"state": {"$in": [state.value for state in states]}}
        documents = self._all.find(query, {"spec": 0}, hint="state").sort("_id", 1)
        return [_record(raw) for raw in documents]

    def of(self, uids: Iterable[str]) -> dict[str, CampaignRecord]:
        """Return campaigns by uid, without their files and those that do not exist. Index: `_id`."""
        return {raw["_id"]: _record(raw) for raw in self._all.find({"_id": {"$in": [*uids]}}, {"spec": 0})}

    def by_state(self) -> dict[str, int]:
        """Count the campaigns of each state. Index: `state`, covered."""
        counted = self._all.aggregate(
            [{"$match": {"state": {"$gte": ""}}}, {"$group": {"_id": "$state", "n": {"$sum": 1}}}], hint="state"
        )
        return {raw["_id"]: raw["n"] for raw in counted}

    def any_converting(self) -> bool:
        """Whether conversions are still counted in any campaign that has ended. Index: `converting`."""
        return self._all.find_one({"converting_until": {"$gt": 0}}, {"_id": 1}, hint="converting") is not None

    def converting(self) -> list[CampaignRecord]:
        """Return the ended campaigns in which conversions are still counted. Index: `converting`."""
        documents = self._all.find({"converting_until": {"$gt": 0}, "state": {"$in": _ENDED}}, hint="converting")
        return [_record(raw) for raw in documents]

    def close_conversions(self, uid: str) -> bool:
        """Stop counting conversions in a campaign that has ended; return False if it has not ended. Index: `_id`."""
        query = {"_id": uid, "state": {"$in": _ENDED}}
        return self._all.update_one(query, _replacing({"converting_until": None, "stuck_by": None})).matched_count == 1

    def everything(self) -> list[CampaignRecord]:
        """Return every campaign, by workspace and name. Index: `name`."""
        return [
            _record(raw)
            for raw in self._all.find({"workspace": {"$gte": ""}}, hint="name").sort([("workspace", 1), ("name", 1)])
        ]

    def page(
        self,
        workspace: str | None,
        states: Iterable[CampaignState],
        text: str,
        after: tuple[str, str],
        limit: int,
    ) -> list[CampaignRecord]:
        """Return up to `limit` campaigns behind `after` (workspace, name), by both, without their files.

        They are those of `workspace` (None: of all), in one of `states` (none: in any), with `text` in their names.
        Index: `name`.
        """
        query: Document = {"workspace": workspace if workspace is not None else {"$gte": ""}}
        if any(after):
            first, name = after
            query = {
                "$and": [query, {"$or": [{"workspace": first, "name": {"$gt": name}}, {"workspace": {"$gt": first}}]}]
            }
        if text:
            query["name"] = {"$regex": re.escape(text), "$options": "i"}
        if chosen := [state.value for state in states]:
            query["state"] = {"$in": chosen}
        documents = self._all.find(query, {"spec": 0}, hint="name").sort([("workspace", 1), ("name", 1)]).limit(limit)
        return [_record(raw) for raw in documents]

    def apply(self, record: CampaignRecord, *, evaluate: bool = False) -> bool:
        """Write the first or the next revision; return False if another command came first.

        The next revision is written only if the previous revision, the state of `record` and the evaluation wanted so
        far are unchanged. With `evaluate`, the same write requires the evaluation number `record.evaluation_wanted`. If
        `record.left_wanted` is the same number, the evaluation includes those who have left.
        """
        revision = {
            "_id": f"{record.uid}/{record.revision:06d}",
            "campaign": record.uid,
            "revision": record.revision,
            "spec": record.spec,
        }
        self._revisions.replace_one({"_id": revision["_id"]}, revision, upsert=True)
        if record.revision == 1:
            try:
                new = {"$setOnInsert": _document(record), "$currentDate": {"touched": True}}
                return self._all.update_one({"_id": record.uid}, new, upsert=True).upserted_id is not None
            except DuplicateKeyError:
                return False
        fields = {
            "kind": record.kind,
            "revision": record.revision,
            "spec": record.spec,
            "cost": record.cost,
            "profile": record.profile,
            "starts_at": record.starts_at,
            "ends_at": record.ends_at,
            "renamed": dict(record.renamed),
            "shapes": dict(record.shapes),
        }
        before = record.evaluation_wanted - evaluate
        query = {"_id": record.uid, "revision": record.revision - 1, "state": record.state.value} | _wanting(before)
        if evaluate:
            fields["evaluation_wanted"] = record.evaluation_wanted
            fields["left_wanted"] = record.left_wanted or None
        return self._all.update_one(query, _replacing(fields)).matched_count == 1

    def move(self, record: CampaignRecord, state: CampaignState, *, exactly: bool = False, **fields: Any) -> bool:
        """Move to `state` and set `fields`, if the state is still that of `record`; a None field is removed.

        With `exactly`, also require that no command has wanted another evaluation since `record` was read. Every move
        that does not give a `paused_reason` removes it. Raises `IllegalTransition` if the table does not allow the
        move. Index: `_id`.
        """
        check_transition(record.state, state)
        query = {"_id": record.uid, "state": record.state.value}
        if exactly:
            query |= _wanting(record.evaluation_wanted)
        update = _replacing({"state": state.value, "paused_reason": None, **fields})
        if state.value in _ENDED:
            update["$inc"] = {"endings": 1}
        return self._all.update_one(query, update).matched_count == 1

    def want_everybody(self, uid: str) -> None:
        """Require a new evaluation of everybody, as a resume does, including those who left. Index: `_id`.

        Those who left are evaluated in any state of the campaign.
        """
        number = {"$add": [{"$ifNull": ["$evaluation_wanted", 0]}, 1]}
        update: list[Document] = [
            {"$set": {"evaluation_wanted": number}},
            {
                "$set": {
                    "everybody_wanted": "$evaluation_wanted",
                    "left_wanted": "$evaluation_wanted",
                    "touched": "$$NOW",
                }
            },
        ]
        self._all.update_one({"_id": uid}, update)

    def evaluated(self, uid: str, number: int, *, enrolled: bool, intake: bool, left: bool) -> None:
        """Note which users an evaluation has covered: the enrolled, everybody else, those who left. Index: `_id`."""
        fields = {"enrolled_done": enrolled, "intake_done": intake, "left_done": left}
        done = {name: number for name, all_of_them in fields.items() if all_of_them}
        if number and done:
            self._all.update_one({"_id": uid}, {"$max": done, "$currentDate": {"touched": True}})

    def passed(self, uids: Sequence[str], as_of: Instant, *, crossed: bool = False) -> None:
        """Note that passes at `as_of` were planned, or (`crossed`) had nothing to find; never moves back. Index: `_id`.

        This does not change `touched`: thousands of campaigns may pass in a minute, and only the clock reads these
        marks.
        """
        marks = {"pass_as_of": as_of} | ({"crossed_to": as_of} if crossed else {})
        self._all.update_many({"_id": {"$in": list(uids)}}, {"$max": marks})

    def crossed(self, uids: Sequence[str], as_of: Instant, *, reconciled: bool = False) -> None:
        """Note that a pass at `as_of` is decided, or had nothing to find; `reconciled`: a full pass. Index: `_id`."""
        update: Document = {"$max": {"crossed_to": as_of}}
        if reconciled:
            update = {"$max": {"crossed_to": as_of, "reconciled_at": as_of}, "$currentDate": {"touched": True}}
        self._all.update_many({"_id": {"$in": list(uids)}}, update)

    def set_stuck(self, uid: str, by: StuckBy, reason: str | None) -> None:
        """Mark a campaign as stuck `by` an obstacle with a reason, or remove that mark (None). Index: `_id`.

        `reason` is a sentence that a person can act on, without personal data. Repeating the same reason changes
        nothing; a different reason keeps the moment since which the campaign is stuck.
        """
        place = f"stuck_by.{by.value}"
        if reason is None:
            gone: Document = {"$unset": {place: ""}, "$currentDate": {"touched": True}}
            self._all.update_one({"_id": uid, place: {"$exists": True}}, gone)
            if by is StuckBy.SLICE:  # a mark of an older version
                old: Document = {"$unset": {"stuck": ""}, "$currentDate": {"touched": True}}
                self._all.update_one({"_id": uid, "stuck": {"$exists": True}}, old)
            return
        since = {"$ifNull": [f"${place}.since", {"$toLong": "$$NOW"}]}
        marked: Document = {"$set": {place: {"reason": {"$literal": reason}, "since": since}, "touched": "$$NOW"}}
        self._all.update_one({"_id": uid, f"{place}.reason": {"$ne": reason}}, [marked, {"$unset": ["stuck"]}])

    def accept_fewer(self, uid: str, ends: Ends) -> None:
        """Lower the counts accepted at a resume to at most `ends`: a replay took failures back. Index: `_id`."""
        fewer = {f"accepted.{name}": count for name, count in ends._asdict().items()}
        update = {"$min": fewer, "$currentDate": {"touched": True}}
        self._all.update_one({"_id": uid, "accepted": {"$exists": True}}, update)

    def measured(self, uid: str, seconds: Sequence[float], keep: int) -> list[float]:
        """Add batches' seconds a user, measured by one process; return the last `keep` of all processes. Index: `_id`.

        The campaign's change time stays: these figures concern nobody but the next judgement.
        """
        update = {"$push": {"batch_times": {"$each": list(seconds), "$slice": -keep}}}
        after = ReturnDocument.AFTER
        raw = self._all.find_one_and_update({"_id": uid}, update, {"batch_times": 1}, return_document=after)
        return [] if raw is None else [float(one) for one in raw["batch_times"]]

    def batch_times(self, uid: str) -> list[float]:
        """Return the seconds a user of the latest batches since the last verdict; none is empty. Index: `_id`."""
        raw = self._all.find_one({"_id": uid}, {"batch_times": 1})
        return [] if raw is None else [float(seconds) for seconds in raw.get("batch_times", ())]

    def set_slowed(self, uid: str, slowed: bool, verdict: Slowness) -> bool:
        """Move a campaign to its slow lane or back; return False if another process came first. Index: `_id`.

        The measured batches are dropped: the other lane needs measurements of its own.
        """
        wanted = {"_id": uid, "slowed": {"$ne": True} if slowed else True}
        update = _replacing({"slowed": slowed or None, "slowness": asdict(verdict), "batch_times": None})
        return self._all.update_one(wanted, update).matched_count == 1

    def touched_since(self, moment: datetime) -> tuple[list[CampaignRecord], datetime]:
        """Return campaigns changed at `moment` or later (MongoDB's clock), and the latest change time.

        Index: `touched`.
        """
        documents = list(self._all.find({"touched": {"$gte": moment}}, hint="touched"))
        return [_record(raw) for raw in documents], max((raw["touched"] for raw in documents), default=moment)

    def marks(self) -> dict[str, Marks]:
        """Return each campaign's state and marks, by uid; costs a fraction of reading the campaigns. Index: `_id_`."""
        documents = self._all.find({"_id": {"$gt": ""}}, dict.fromkeys(Marks._fields, 1))
        return {raw["_id"]: _marks(raw) for raw in documents}

    def revisions(self, uid: str) -> list[tuple[int, Document]]:
        """Return all revisions of a campaign as (number, spec). Index: `revision`."""
        return [(raw["revision"], raw["spec"]) for raw in self._revisions.find({"campaign": uid}).sort("revision", 1)]


def _replacing(fields: Document) -> Document:
    """Build the update that sets `fields`, removes those that are None, and bumps the campaign's change time."""
    gone = {key: "" for key, value in fields.items() if value is None}
    update = {"$set": without_none(fields), "$unset": gone, "$currentDate": {"touched": True}}
    return {operator: of for operator, of in update.items() if of}


def upgrade(database: Database[Document]) -> int:
    """Update records of earlier engines; safe to run twice. Return how many were updated. Index: `state`.

    Earlier engines recorded a cancel whose run over the enrolled was not written yet as a `pass_as_of` of -1.
    """
    all_of = database.get_collection("campaigns", write_concern=MAJORITY)
    old = {"state": CampaignState.CANCELLED.value, "pass_as_of": -1}
    new = {"$set": {"evaluation_wanted": 1, "pass_as_of": 0}, "$currentDate": {"touched": True}}
    return all_of.update_many(old, new).modified_count


def _wanting(number: int) -> Document:
    """Build the filter for campaigns whose last wanted evaluation has this number; 0 is never written."""
    return {"evaluation_wanted": number or None}


def _document(record: CampaignRecord) -> Document:
    return without_none(
        {
            "_id": record.uid,
            "workspace": record.workspace,
            "name": record.name,
            "kind": record.kind,
            "state": record.state.value,
            "revision": record.revision,
            "spec": record.spec,
            "cost": record.cost,
            "profile": record.profile,
            "starts_at": record.starts_at,
            "ends_at": record.ends_at,
            "shapes": dict(record.shapes),
        }
    )


def _marks(raw: Document) -> Marks:
    return Marks(CampaignState(raw["state"]), *(raw.get(name, 0) for name in Marks._fields[1:]))


def _record(raw: Document) -> CampaignRecord:
    return CampaignRecord(
        uid=raw["_id"],
        workspace=raw["workspace"],
        name=raw["name"],
        kind=raw["kind"],
        state=CampaignState(raw["state"]),
        revision=raw["revision"],
        spec=raw.get("spec"),
        cost=raw.get("cost", "quick"),
        profile=raw.get("profile"),
        starts_at=raw.get("starts_at"),
        ends_at=raw.get("ends_at"),
        launched_at=raw.get("launched_at"),
        resumed_at=raw.get("resumed_at", 0),
        resume_to=CampaignState(raw["resume_to"]) if "resume_to" in raw else None,
        pass_as_of=raw.get("pass_as_of", 0),
        crossed_to=raw.get("crossed_to", 0),
        reconciled_at=raw.get("reconciled_at", 0),
        finished_at=raw.get("finished_at"),
        converting_until=raw.get("converting_until"),
        stuck_by=_stuck_by(raw),
        paused_reason=raw.get("paused_reason"),
        slowed=raw.get("slowed", False),
        slowness=Slowness(**raw["slowness"]) if "slowness" in raw else None,
        path=AccessPath(raw["path"]) if "path" in raw else None,
        renamed=raw.get("renamed", {}),
        evaluation_wanted=raw.get("evaluation_wanted", 0),
        everybody_wanted=raw.get("everybody_wanted", 0),
        left_wanted=raw.get("left_wanted", 0),
        enrolled_done=raw.get("enrolled_done", 0),
        intake_done=raw.get("intake_done", 0),
        left_done=raw.get("left_done", 0),
        shapes=raw.get("shapes", {}),
        accepted=Ends(**raw["accepted"]) if "accepted" in raw else NONE,
        endings=raw.get("endings", 0),
    )


def _stuck_by(raw: Document) -> dict[StuckBy, Stuck]:
    """Read the obstacles of a campaign; an older version stored a single text."""
    marks = {StuckBy(by): Stuck(stuck["reason"], stuck["since"]) for by, stuck in raw.get("stuck_by", {}).items()}
    return marks or ({StuckBy.SLICE: Stuck(raw["stuck"], 0)} if "stuck" in raw else {})


NAMED: Final[Mapping[str, str]] = {
    "campaigns.named": "name",
    "campaigns.in_states": "state",
    "campaigns.by_state": "state",
    "campaigns.any_converting": "converting",
    "campaigns.converting": "converting",
    "campaigns.touched_since": "touched",
    "campaigns.marks": "_id_",
    "campaigns.everything": "name",
    "campaigns.page": "name",
    "campaigns.revisions": "revision",
}
"""The named queries and the index each relies on."""
