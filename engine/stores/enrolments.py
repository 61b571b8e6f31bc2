"""The enrolments: what a look reads and what a decision writes. One stay is one document.

Every write names the version that it read and raises it; where another write came first, it changes nothing, and the
other writer has seen to it that the stay is looked at again. Instants are campaign time.
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
from engine.domain.enrolment import Enrolment, StayChange
from engine.domain.keys import HIGHEST, campaign_of, enrolment_ids, suffix_of_stay
from engine.failpoints import passage
from engine.measuring import named_queries
from engine.stores.bulk import insert_new, write
from engine.stores.connect import MAJORITY, READ_SNAPSHOT
from engine.stores.documents import enrolment_document, outgoing_document, read_enrolment, settled_document
from engine.stores.entering import KEYS_PER_USER, Copies, one_by_one, range_of

INDEXES: Final = (
    IndexModel(
        [("due_at", ASCENDING), ("campaign", ASCENDING), ("_id", ASCENDING)],
        name="due",
        partialFilterExpression={"due_at": {"$exists": True}},
    ),
    IndexModel(
        # The state of the delivery is left out: marking it as attempting costs no write here.
        [("campaign", ASCENDING), ("outgoing.not_before", ASCENDING)],
        name="outgoing",
        partialFilterExpression={"outgoing.not_before": {"$exists": True}},
    ),
    IndexModel(
        # `idle_since` stands only while nothing is on its way: sending a message costs no write here besides settling.
        [("campaign", ASCENDING), ("idle_since", ASCENDING)],
        name="idle",
        partialFilterExpression={"state": "active", "idle_since": {"$exists": True}},
    ),
    IndexModel([("user", ASCENDING), ("campaign", ASCENDING), ("entry", ASCENDING)], name="user"),
)


@named_queries("enrolments")
class Enrolments:
    """Reads for looks, writes of decisions."""

    def __init__(self, database: Database[Document]) -> None:
        self._all: Collection[Document] = database.get_collection("enrolments", write_concern=MAJORITY)
        self._at_once = self._all.with_options(read_concern=READ_SNAPSHOT)

    def latest(self, workspace: str, campaign: str, first: str, last: str) -> dict[str, Enrolment]:
        """The latest stay of each user from suffix `first` to `last` (both included), by suffix. Index: `_id` range."""
        prefix = f"{workspace}/{campaign}/"
        found = self._all.find({"_id": {"$gte": prefix + first, "$lt": f"{prefix}{last}/{HIGHEST}"}}).sort("_id", 1)
        return {suffix_of_stay(raw["_id"]): read_enrolment(raw) for raw in found}

    def latest_of(self, campaign: str, users: Sequence[str]) -> dict[str, Enrolment]:
        """The latest stay of each of `users` (user keys) in one campaign, by user key. Index: `user`."""
        found = self._all.find({"user": {"$in": list(users)}, "campaign": campaign}).sort("entry", 1)
        return {raw["user"]: read_enrolment(raw) for raw in found}

    def active(self, prefix: str, after: str, until: str, limit: int) -> list[Enrolment]:
        """Up to `limit` active stays with ids in (`after`, `until`), by id. Index: `_id` range of the campaign.

        `prefix` is `w/c/`; `after` an id or a bound below the first one.
        """
        bounds = {"$gt": max(after, prefix), "$lt": until}
        return [
            read_enrolment(raw)
            for raw in self._all.find({"_id": bounds, "state": "active"}).sort("_id", 1).limit(limit)
        ]

    def due(self, prefix: str, after: str, until: str, as_of: Instant, limit: int) -> list[Enrolment]:
        """Up to `limit` stays due at `as_of` with ids in (`after`, `until`), in order of id.

        Index: where many are due the `_id` range, where few are `due`; MongoDB's planner tries both and keeps the
        better one for as long as it is.
        """
        bounds = {"$gt": max(after, prefix), "$lt": until}
        wanted = {"_id": bounds, "campaign": campaign_of(prefix), "due_at": {"$lte": as_of}}
        found = self._all.find(wanted).sort("_id", 1).limit(limit)
        return [read_enrolment(raw) for raw in found]

    def idle(self, prefix: str, after: str, until: str, before: Instant, limit: int) -> list[Enrolment]:
        """Up to `limit` active stays with nothing on its way and idle since `before` or earlier, in order of id.

        Index: where many are idle the `_id` range, where few are `idle`.
        """
        bounds = {"$gt": max(after, prefix), "$lt": until}
        wanted = {"_id": bounds, **_idle(campaign_of(prefix), before)}
        return [read_enrolment(raw) for raw in self._all.find(wanted).sort("_id", 1).limit(limit)]

    def idle_ids(self, campaign: str, before: Instant, limit: int) -> list[str]:
        """Ids of up to `limit` active stays idle since `before` or earlier, sorted by id. Index: `idle`."""
        found = self._all.find(_idle(campaign, before), {"_id": 1}, hint="idle").limit(limit)
        return sorted(raw["_id"] for raw in found)

    def first_idle_campaign(self, campaigns: Sequence[str], before: Instant) -> str | None:
        """The uid of one of `campaigns` with a stay idle since `before` or earlier. Index: `idle`, a seek for each."""
        found = self._all.find_one(_idle({"$in": list(campaigns)}, before), {"campaign": 1}, hint="idle")
        return None if found is None else str(found["campaign"])

    def first_due_campaign(self, as_of: Instant, leave_out: Sequence[str]) -> str | None:
        """The uid of a campaign with a stay due at `as_of`, other than `leave_out`. Index: `due`, covered."""
        wanted = {"due_at": {"$lte": as_of}, "campaign": {"$nin": list(leave_out)}}
        found = self._all.find_one(wanted, {"_id": 0, "campaign": 1}, hint="due")
        return None if found is None else str(found["campaign"])

    def due_ids(self, campaign: str, as_of: Instant, limit: int) -> list[str]:
        """Ids of up to `limit` stays of a campaign that are due, sorted by id. Index: `due`, covered."""
        found = self._all.find({"due_at": {"$lte": as_of}, "campaign": campaign}, {"_id": 1}, hint="due").limit(limit)
        return sorted(raw["_id"] for raw in found)

    def all_of(self, campaign: str, user: str) -> list[Enrolment]:
        """Every stay of a user (user key) in one campaign, by entry. Index: `user`."""
        found = self._all.find({"user": user, "campaign": campaign}).sort("entry", 1)
        return [read_enrolment(raw) for raw in found]

    def latest_in(self, campaigns: Sequence[str], users: Sequence[str]) -> dict[tuple[str, str], Enrolment]:
        """The latest stay of each of `users` (user keys) in each of `campaigns`, by (campaign, user). Index: `user`."""
        wanted = {"user": {"$in": list(users)}, "campaign": {"$in": list(campaigns)}}
        found = self._all.find(wanted, hint="user").sort("entry", 1)
        return {(raw["campaign"], raw["user"]): read_enrolment(raw) for raw in found}

    def stays_of(self, user: str) -> list[Enrolment]:
        """Every stay of a user (user key) in any campaign, by campaign and entry. Index: `user`."""
        found = self._all.find({"user": user}).sort([("campaign", 1), ("entry", 1)])
        return [read_enrolment(raw) for raw in found]

    def enter(self, stays: Sequence[Enrolment]) -> set[str]:
        """Insert new stays, the key as `_id`: check, then insert. Gives the ids inserted; those that exist are left."""
        ids = [stay.id for stay in stays]
        present = {raw["_id"] for raw in self._all.find({"_id": {"$in": ids}}, {"_id": 1})}
        fresh = [stay for stay in stays if stay.id not in present]
        inserted = self._insert([stay.id for stay in fresh], [enrolment_document(stay) for stay in fresh])
        self._clear_due([f"{stay.id[:-4]}{stay.entry - 1:04d}" for stay in fresh if stay.entry > 1])
        return inserted

    def enter_alike(self, model: Enrolment, users: Sequence[tuple[str, str]]) -> set[str]:
        """Insert a new stay like `model` for each of `users` (suffix `h/u`, user key): check, then insert.

        Equal to `enter` with such stays in all but its cost: a batch is one read of keys and one insert of copied
        bytes. Gives the ids inserted; those that exist are left. Index: `_id_`, covered.
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
        """Those of `suffixes` (`h/u`) that have any stay of the campaign, so that their stays are worth reading.

        Only keys are read. A user with a stay has the first one: stays are never removed. Index: `_id_`, covered.
        """
        found = self._known(workspace, campaign, suffixes, 1)
        return {suffix_of_stay(key) for key in found}.intersection(suffixes) if found else set()

    def _known(self, workspace: str, campaign: str, suffixes: Sequence[str], entry: int) -> list[str]:
        """The ids of the stays of number `entry` that `suffixes` have, among others perhaps: a range, or one by one.

        The range is read where it holds few more stays than were asked for; where it turns out to hold many, the users
        are far apart and each is a seek of its own.
        """
        if not suffixes:
            return []
        most = KEYS_PER_USER * len(suffixes) + 1
        wanted = range_of(workspace, campaign, suffixes)
        near = self._all.find(wanted, {"_id": 1}, hint="_id_", batch_size=most, limit=most)
        found = [raw["_id"] for raw in near]
        if len(found) == most:
            apart = self._all.find(one_by_one(workspace, campaign, suffixes, entry), {"_id": 1}, batch_size=most)
            found = [raw["_id"] for raw in apart]
        return found

    def _insert(self, ids: Sequence[str], documents: Sequence[Document | RawBSONDocument]) -> set[str]:
        """Insert stays; gives the ids of those that nobody has inserted meanwhile."""
        if not ids:
            return set()
        inserted = set(ids).difference(ids[index] for index in insert_new(self._all, documents))
        passage("enter.inserted", ids)
        return inserted

    def _clear_due(self, earlier: Sequence[str]) -> None:
        """A newer stay takes the place of each of these if it has ended: it is not looked at any more. Index: `_id`."""
        if earlier:
            self._all.update_many({"_id": {"$in": earlier}, "state": "ended"}, {"$unset": {"due_at": ""}})
            passage("enter.reentered")

    def advance(self, changes: Sequence[StayChange]) -> int:
        """Write decisions on existing stays, equal ones together; gives how many found the version they had read."""
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
        passage("choose.advanced", (f"{one.id}/{one.outgoing.message}" for one in changes if one.outgoing))
        return matched

    def overtaken(self, changes: Sequence[StayChange]) -> list[str]:
        """The ids of those of `changes` that do not stand written: another write came first. Index: `_id`."""
        by_id = {change.id: change for change in changes}
        return [raw["_id"] for raw in self._all.find({"_id": {"$in": list(by_id)}}) if not _stands(by_id, raw)]

    def wake(self, ids: Sequence[str], now: Instant, *, left: bool = False) -> int:
        """Have active stays looked at next, by id, whatever others have read of them; gives how many. Index: `_id`.

        With `left` also those that have ended. Settling has that of a delivery that is being attempted.
        """
        if not ids:
            return 0
        wanted: Document = {"_id": {"$in": list(ids)}, "outgoing.state": {"$ne": "attempting"}}
        wanted |= {} if left else {"state": "active"}
        return self._all.update_many(wanted, {"$set": {"due_at": now}, "$inc": {"version": 1}}).modified_count

    def last_entered(self, prefix: str) -> Instant | None:
        """When the last stay of a campaign began; None where nobody was ever in. Index: `_id` range of the campaign.

        It reads every stay inside the server: once, when a continuous campaign with a goal ends.
        """
        wanted = {"_id": {"$gt": prefix, "$lt": prefix[:-1] + "0"}}
        latest = {"$group": {"_id": None, "at": {"$max": "$entered_at"}}}
        found = next(iter(self._all.aggregate([{"$match": wanted}, latest], hint="_id_")), None)
        return None if found is None else int(found["at"])

    def clear_due(self, campaign: str) -> None:
        """Nothing of this campaign is looked at by time any more. Index: `due`."""
        self._all.update_many(
            {"campaign": campaign, "due_at": {"$exists": True}}, {"$unset": {"due_at": ""}}, hint="due"
        )

    def make_due(self, user: str, now: Instant) -> int:
        """Every active stay of a user (user key) is looked at next; gives how many. Index: `user`."""
        wanted = {"user": user, "state": "active", "outgoing.state": {"$ne": "attempting"}}
        return self._all.update_many(wanted, {"$set": {"due_at": now}}, hint="user").modified_count

    def has_open(self, campaign: str) -> bool:
        """Whether any stay is active or has a delivery on its way. Indexes: `idle` and `outgoing`, in one snapshot.

        A stay goes from one of them to the other: asked for one after the other, it could be missed by both.
        """
        idle = {"campaign": campaign, "state": "active", "idle_since": {"$exists": True}}
        sending = {"campaign": campaign, "outgoing.not_before": {"$exists": True}}
        return self._at_once.find_one({"$or": [idle, sending]}, {"_id": 1}) is not None


def _idle(campaign: str | Document, before: Instant) -> Document:
    """Active stays without a settled message since `before` and nothing on its way."""
    return {
        "campaign": campaign,
        "state": "active",
        "idle_since": {"$lte": before},
    }


def _stands(changes: Mapping[str, StayChange], raw: Document) -> bool:
    """Whether a stay is as its change would have it; who wrote it does not matter then."""
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


def _update(change: StayChange) -> Document:
    """The MongoDB update of one decision."""
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
"""The named queries and the index each relies on; of two, the planner chooses by what it finds, or asks both."""
