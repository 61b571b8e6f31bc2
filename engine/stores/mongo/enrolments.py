"""The enrolments: reads for evaluations and writes of decisions. One enrolment is one document.

Every write names the version that it read and raises it. If another write came first, it changes nothing, and the other
writer has made sure that the enrolment is evaluated again. Instants are campaign time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import orjson
from bson.raw_bson import RawBSONDocument
from pymongo import ASCENDING, IndexModel, UpdateMany
from pymongo.collection import Collection
from pymongo.database import Database

from engine.clock import Instant
from engine.domain.document import Document
from engine.domain.enrolment import Enrolment, EnrolmentChange
from engine.domain.keys import HIGHEST, campaign_of, enrolment_ids, suffix_of_enrolment
from engine.failpoints import passage
from engine.query_metrics import named_queries
from engine.stores.mongo.bulk_writes import insert_new, write
from engine.stores.mongo.client import MAJORITY, READ_SNAPSHOT
from engine.stores.mongo.enrolment_cloning import KEYS_PER_USER, Copies, one_by_one, range_of
from engine.stores.mongo.work_documents import enrolment_document, outgoing_document, read_enrolment, settled_document

INDEXES: Final = (
    IndexModel(
        [("due_at", ASCENDING), ("campaign", ASCENDING), ("_id", ASCENDING)],
        name="due",
        partialFilterExpression={"due_at": {"$exists": True}},
    ),
    IndexModel(
        # The index omits the delivery's state, so marking it as attempting costs no write here.
        [("campaign", ASCENDING), ("outgoing.not_before", ASCENDING)],
        name="outgoing",
        partialFilterExpression={"outgoing.not_before": {"$exists": True}},
    ),
    IndexModel(
        # `idle_since` is set only while nothing is in progress: sending a message costs no write here except when it
        # settles.
        [("campaign", ASCENDING), ("idle_since", ASCENDING)],
        name="idle",
        partialFilterExpression={"state": "active", "idle_since": {"$exists": True}},
    ),
    IndexModel([("user", ASCENDING), ("campaign", ASCENDING), ("entry", ASCENDING)], name="user"),
)


@named_queries("enrolments")
class Enrolments:
    """Reads for evaluations and writes of decisions."""

    def __init__(self, database: Database[Document]) -> None:
        self._all: Collection[Document] = database.get_collection("enrolments", write_concern=MAJORITY)
        self._at_once = self._all.with_options(read_concern=READ_SNAPSHOT)

    def latest(self, workspace: str, campaign: str, first: str, last: str) -> dict[str, Enrolment]:
        """Return each user's latest enrolment, by suffix, from `first` to `last` inclusive. Index: `_id` range."""
        prefix = f"{workspace}/{campaign}/"
        documents = self._all.find({"_id": {"$gte": prefix + first, "$lt": f"{prefix}{last}/{HIGHEST}"}}).sort("_id", 1)
        return {suffix_of_enrolment(raw["_id"]): read_enrolment(raw) for raw in documents}

    def latest_of(self, campaign: str, users: Sequence[str]) -> dict[str, Enrolment]:
        """Return the latest enrolment of each of `users` (user keys) in one campaign, by user key. Index: `user`."""
        documents = self._all.find({"user": {"$in": list(users)}, "campaign": campaign}).sort("entry", 1)
        return {raw["user"]: read_enrolment(raw) for raw in documents}

    def active(self, prefix: str, after: str, until: str, limit: int) -> list[Enrolment]:
        """Return up to `limit` active enrolments with ids in (`after`, `until`), by id. Index: `_id` range.

        `prefix` is `w/c/`; `after` is an id, or a bound below the first one.
        """
        bounds = {"$gt": max(after, prefix), "$lt": until}
        return [
            read_enrolment(raw)
            for raw in self._all.find({"_id": bounds, "state": "active"}).sort("_id", 1).limit(limit)
        ]

    def due(self, prefix: str, after: str, until: str, as_of: Instant, limit: int) -> list[Enrolment]:
        """Return up to `limit` enrolments due at `as_of` with ids in (`after`, `until`), in order of id.

        Index: the `_id` range if many are due, `due` if few are. MongoDB's planner tries both and keeps the better one
        as long as it stays better.
        """
        bounds = {"$gt": max(after, prefix), "$lt": until}
        query = {"_id": bounds, "campaign": campaign_of(prefix), "due_at": {"$lte": as_of}}
        documents = self._all.find(query).sort("_id", 1).limit(limit)
        return [read_enrolment(raw) for raw in documents]

    def idle(self, prefix: str, after: str, until: str, before: Instant, limit: int) -> list[Enrolment]:
        """Return up to `limit` active enrolments idle since `before` or earlier, in order of id.

        They have no delivery in progress. Index: the `_id` range if many are idle, `idle` if few are.
        """
        bounds = {"$gt": max(after, prefix), "$lt": until}
        query = {"_id": bounds, **_idle(campaign_of(prefix), before)}
        return [read_enrolment(raw) for raw in self._all.find(query).sort("_id", 1).limit(limit)]

    def idle_ids(self, campaign: str, before: Instant, limit: int) -> list[str]:
        """Return ids of up to `limit` active enrolments idle since `before` or earlier, sorted by id. Index: `idle`."""
        documents = self._all.find(_idle(campaign, before), {"_id": 1}, hint="idle").limit(limit)
        return sorted(raw["_id"] for raw in documents)

    def first_idle_campaign(self, campaigns: Sequence[str], before: Instant) -> str | None:
        """Return the uid of one of `campaigns` with an enrolment idle since `before`. Index: `idle`, one seek each."""
        document = self._all.find_one(_idle({"$in": list(campaigns)}, before), {"campaign": 1}, hint="idle")
        return None if document is None else str(document["campaign"])

    def first_due_campaign(self, as_of: Instant, leave_out: Sequence[str]) -> str | None:
        """Return the uid of a campaign with an enrolment due at `as_of`, but not `leave_out`. Index: `due`, covered."""
        query = {"due_at": {"$lte": as_of}, "campaign": {"$nin": list(leave_out)}}
        document = self._all.find_one(query, {"_id": 0, "campaign": 1}, hint="due")
        return None if document is None else str(document["campaign"])

    def overdue(self, before: Instant, limit: int, campaign: str | None = None) -> dict[str, Instant]:
        """Return since when an enrolment of a campaign is due, by the campaign's uid, for those due before `before`.

        It reads the enrolments that are due for longest, at most 20 times `limit`: of a campaign with more it says that
        it is late, of one behind it nothing. With `campaign` it reads only the oldest of that one. Index: `due`,
        covered.
        """
        fields = {"_id": 0, "campaign": 1, "due_at": 1}
        found: dict[str, Instant] = {}
        if campaign is not None:
            one = {"due_at": {"$lt": before}, "campaign": campaign}
            raw = self._all.find_one(one, fields, sort=[("due_at", 1)], hint="due")
            return {} if raw is None else {campaign: raw["due_at"]}
        oldest = self._all.find({"due_at": {"$lt": before}}, fields, hint="due").sort("due_at", 1).limit(20 * limit)
        for raw in oldest:
            found.setdefault(raw["campaign"], raw["due_at"])
        return found

    def due_ids(self, campaign: str, as_of: Instant, limit: int) -> list[str]:
        """Return ids of up to `limit` due enrolments of a campaign, sorted by id. Index: `due`, covered."""
        documents = self._all.find({"due_at": {"$lte": as_of}, "campaign": campaign}, {"_id": 1}, hint="due").limit(
            limit
        )
        return sorted(raw["_id"] for raw in documents)

    def all_of(self, campaign: str, user: str) -> list[Enrolment]:
        """Return every enrolment of a user (user key) in one campaign, by entry. Index: `user`."""
        documents = self._all.find({"user": user, "campaign": campaign}).sort("entry", 1)
        return [read_enrolment(raw) for raw in documents]

    def latest_in(self, campaigns: Sequence[str], users: Sequence[str]) -> dict[tuple[str, str], Enrolment]:
        """Return each user's latest enrolment in each campaign, by (campaign, user). Index: `user`.

        `users` are user keys.
        """
        query = {"user": {"$in": list(users)}, "campaign": {"$in": list(campaigns)}}
        documents = self._all.find(query, hint="user").sort("entry", 1)
        return {(raw["campaign"], raw["user"]): read_enrolment(raw) for raw in documents}

    def stays_of(self, user: str) -> list[Enrolment]:
        """Return every enrolment of a user (user key) in any campaign, by campaign and entry. Index: `user`."""
        documents = self._all.find({"user": user}).sort([("campaign", 1), ("entry", 1)])
        return [read_enrolment(raw) for raw in documents]

    def enter(self, enrolments: Sequence[Enrolment]) -> set[str]:
        """Insert new enrolments: check by key, then insert. Return the ids inserted; existing ones stay unchanged."""
        ids = [enrolment.id for enrolment in enrolments]
        present = {raw["_id"] for raw in self._all.find({"_id": {"$in": ids}}, {"_id": 1})}
        fresh = [enrolment for enrolment in enrolments if enrolment.id not in present]
        inserted = self._insert(
            [enrolment.id for enrolment in fresh], [enrolment_document(enrolment) for enrolment in fresh]
        )
        self._clear_due([f"{enrolment.id[:-4]}{enrolment.entry - 1:04d}" for enrolment in fresh if enrolment.entry > 1])
        return inserted

    def enter_alike(self, model: Enrolment, users: Sequence[tuple[str, str]]) -> set[str]:
        """Insert a new enrolment like `model` for each of `users` (suffix `h/u`, user key): check, then insert.

        The result equals `enter` with the same enrolments at a lower cost: a batch is one read of keys and one insert
        of copied bytes. Return the ids inserted; existing ones stay unchanged. Index: `_id_`, covered.
        """
        workspace, campaign, entry = model.workspace, model.campaign, model.entry
        suffixes = [suffix for suffix, _ in users]
        ids = enrolment_ids(workspace, campaign, suffixes, entry)
        known = set(self._known(workspace, campaign, suffixes, entry))
        fresh = [(key, user) for key, (_, user) in zip(ids, users, strict=True) if key not in known]
        inserted = self._insert([key for key, _ in fresh], Copies(model).of(fresh))
        if entry > 1:
            new = [suffix for key, suffix in zip(ids, suffixes, strict=True) if key not in known]
            self._clear_due(enrolment_ids(workspace, campaign, new, entry - 1))
        return inserted

    def present(self, workspace: str, campaign: str, suffixes: Sequence[str]) -> set[str]:
        """Return those of `suffixes` (`h/u`) that have any enrolment of the campaign, so that reading it is worthwhile.

        This reads only keys. A user with any enrolment has the first one, because enrolments are never removed. Index:
        `_id_`, covered.
        """
        known = self._known(workspace, campaign, suffixes, 1)
        return {suffix_of_enrolment(key) for key in known}.intersection(suffixes) if known else set()

    def _known(self, workspace: str, campaign: str, suffixes: Sequence[str], entry: int) -> list[str]:
        """Return ids of enrolments number `entry` of `suffixes`, perhaps among others: read as a range, or one by one.

        The range read is used if it holds few more enrolments than requested. If it turns out to hold many, the users
        are far apart, and each user costs one seek.
        """
        if not suffixes:
            return []
        most = KEYS_PER_USER * len(suffixes) + 1
        query = range_of(workspace, campaign, suffixes)
        near = self._all.find(query, {"_id": 1}, hint="_id_", batch_size=most, limit=most)
        known = [raw["_id"] for raw in near]
        if len(known) == most:
            apart = self._all.find(one_by_one(workspace, campaign, suffixes, entry), {"_id": 1}, batch_size=most)
            known = [raw["_id"] for raw in apart]
        return known

    def _insert(self, ids: Sequence[str], documents: Sequence[Document | RawBSONDocument]) -> set[str]:
        """Insert enrolments; return the ids of those that no other process has inserted meanwhile."""
        if not ids:
            return set()
        inserted = set(ids).difference(ids[index] for index in insert_new(self._all, documents))
        passage("enter.inserted", ids)
        return inserted

    def _clear_due(self, earlier: Sequence[str]) -> None:
        """Stop evaluating these enrolments by time if they have ended: newer ones replace them. Index: `_id`."""
        if earlier:
            self._all.update_many({"_id": {"$in": earlier}, "state": "ended"}, {"$unset": {"due_at": ""}})
            passage("enter.reentered")

    def advance(self, changes: Sequence[EnrolmentChange]) -> int:
        """Write decisions on existing enrolments, equal ones together; return how many still had the version read."""
        groups: dict[bytes, tuple[int, Document, list[str]]] = {}
        for change in changes:
            update = _update(change)
            key = orjson.dumps((change.version, update), option=orjson.OPT_SORT_KEYS)
            groups.setdefault(key, (change.version, update, []))[2].append(change.id)
        writes = [
            UpdateMany({"_id": {"$in": ids}, "version": version}, update) for version, update, ids in groups.values()
        ]
        if not writes:
            return 0
        matched = write(self._all, writes).matched_count
        passage("choose.advanced", (f"{sent.id}/{sent.outgoing.message}" for sent in changes if sent.outgoing))
        return matched

    def overtaken(self, changes: Sequence[EnrolmentChange]) -> list[str]:
        """Return the ids of `changes` that are not in effect, because another write came first. Index: `_id`."""
        by_id = {change.id: change for change in changes}
        return [raw["_id"] for raw in self._all.find({"_id": {"$in": list(by_id)}}) if not _stands(by_id, raw)]

    def wake(self, ids: Sequence[str], now: Instant, *, left: bool = False) -> int:
        """Make active enrolments due now, by id, whatever version others have read; return how many. Index: `_id`.

        With `left`, also those that have ended. An enrolment with a delivery being attempted is left out, because
        settling it makes it due.
        """
        if not ids:
            return 0
        query: Document = {"_id": {"$in": list(ids)}, "outgoing.state": {"$ne": "attempting"}}
        query |= {} if left else {"state": "active"}
        return self._all.update_many(query, {"$set": {"due_at": now}, "$inc": {"version": 1}}).modified_count

    def last_entered(self, prefix: str) -> Instant | None:
        """Return when the last enrolment of a campaign began; None if nobody ever entered. Index: `_id` range.

        The server reads every enrolment. This happens once, when a continuous campaign with a goal ends.
        """
        query = {"_id": {"$gt": prefix, "$lt": prefix[:-1] + "0"}}
        latest = {"$group": {"_id": None, "at": {"$max": "$entered_at"}}}
        document = next(iter(self._all.aggregate([{"$match": query}, latest], hint="_id_")), None)
        return None if document is None else int(document["at"])

    def clear_due(self, campaign: str) -> None:
        """Stop evaluating all enrolments of this campaign by time. Index: `due`."""
        self._all.update_many(
            {"campaign": campaign, "due_at": {"$exists": True}}, {"$unset": {"due_at": ""}}, hint="due"
        )

    def make_due(self, user: str, now: Instant) -> int:
        """Make every active enrolment of a user (user key) due now; return how many. Index: `user`.

        An enrolment with a delivery being attempted is left out.
        """
        query = {"user": user, "state": "active", "outgoing.state": {"$ne": "attempting"}}
        return self._all.update_many(query, {"$set": {"due_at": now}}, hint="user").modified_count

    def has_open(self, campaign: str) -> bool:
        """Whether any enrolment is active or has a delivery in progress. Indexes: `idle` and `outgoing`.

        Both are read in one snapshot. An enrolment moves from one index to the other, so two separate reads could both
        miss it.
        """
        idle = {"campaign": campaign, "state": "active", "idle_since": {"$exists": True}}
        sending = {"campaign": campaign, "outgoing.not_before": {"$exists": True}}
        return self._at_once.find_one({"$or": [idle, sending]}, {"_id": 1}) is not None


def _idle(campaign: str | Document, before: Instant) -> Document:
    """Build the filter for active enrolments idle since `before` with nothing in progress."""
    return {
        "campaign": campaign,
        "state": "active",
        "idle_since": {"$lte": before},
    }


def _stands(changes: Mapping[str, EnrolmentChange], raw: Document) -> bool:
    """Whether an enrolment is as its change would leave it; it does not matter who wrote it."""
    change = changes[raw["_id"]]
    chosen = None if change.outgoing is None else change.outgoing.message
    return (
        raw["version"] == change.version + 1
        and raw["revision"] == change.revision
        and raw.get("due_at") == change.due_at
        and raw.get("reason") == (change.exit and change.exit.value)
        and (chosen is None or raw.get("outgoing", {}).get("message") == chosen)
        and (change.converted_at is None or raw.get("converted_at") == change.converted_at)
    )


def _update(change: EnrolmentChange) -> Document:
    """Build the MongoDB update of one decision."""
    fields: Document = {"revision": change.revision}
    gone: Document = {}
    update: Document = {"$set": fields, "$inc": {"version": 1}}
    if change.due_at is None:
        gone["due_at"] = ""
    else:
        fields["due_at"] = change.due_at
    if change.converted_at is not None:
        fields["converted_at"] = change.converted_at
    if change.exit is not None:
        fields |= {"state": "ended", "reason": change.exit.value, "ended_at": change.as_of}
        gone["outgoing"] = ""
    if change.detail is not None:
        fields["detail"] = change.detail
    if change.outgoing is not None:
        fields["outgoing"] = outgoing_document(change.outgoing)
        gone["idle_since"] = ""
    if change.settled is not None:
        update["$push"] = {"settled": settled_document(change.settled)}
        fields["settled_at"] = change.settled.at
        if change.outgoing is None:
            fields["idle_since"] = change.settled.at
    if gone:
        update["$unset"] = gone
    return update


NAMED: Final[Mapping[str, str]] = {
    "enrolments.overdue": "due",
    "enrolments.latest": "_id_",
    "enrolments.latest_of": "user",
    "enrolments.active": "_id_",
    "enrolments.due": "_id_ or due",
    "enrolments.idle": "_id_ or idle",
    "enrolments.idle_ids": "idle",
    "enrolments.first_idle_campaign": "idle",
    "enrolments.first_due_campaign": "due",
    "enrolments.due_ids": "due",
    "enrolments.all_of": "user",
    "enrolments.latest_in": "user",
    "enrolments.stays_of": "user",
    "enrolments.enter_alike": "_id_",
    "enrolments.present": "_id_",
    "enrolments.has_open": "idle or outgoing",
    "enrolments.last_entered": "_id_",
}
"""The named queries and the index each relies on; where two are named, MongoDB's planner chooses by the data or uses
both."""
