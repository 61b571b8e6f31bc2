"""Slices and their leases. MongoDB's own clock (`$$NOW`) sets and compares leases, never a worker's clock.

An ended slice is also the record of its work, from which `policy simulate` replays a week. The writes that a slice
needs anyway carry it: `added_at`, `lane`, and three numbers for each turn (`turns`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Final

from pymongo import ASCENDING, IndexModel, ReturnDocument
from pymongo.collection import Collection
from pymongo.database import Database

from engine.clock import Instant, SystemClock, millis, moment
from engine.domain.document import Document
from engine.domain.lifecycle import SliceState
from engine.domain.metric_totals import EndedSlice
from engine.domain.slice_record import SliceRecord, Turn
from engine.domain.work import Expired, Failure, Slice, SliceKind, Waiting
from engine.query_metrics import named_queries
from engine.stores.mongo.bulk_writes import insert_new
from engine.stores.mongo.client import EPOCH, MAJORITY, READ_MAJORITY
from engine.stores.mongo.work_documents import SLICE_RECORD, read_slice, read_slice_record, slice_document

_CLOCK: Final = SystemClock()
_NOW: Final = "$$NOW"
_BROKEN_AT: Final = {"$ifNull": ["$broken_at", _NOW]}
"""When a batch was first broken off since the latest checkpoint."""
_HELD: Final = {"$subtract": [_NOW, {"$ifNull": ["$claimed_at", _NOW]}]}
"""Milliseconds since the claim."""
_WORKED: Final = {"$add": [{"$ifNull": ["$worked", 0]}, _HELD]}
"""Milliseconds that workers have held the slice, the current claim included."""

MOST_TURNS: Final = 100
"""Turns of a slice that its document keeps (33 bytes each): later ones count only in `worked`."""

_ADDED_AT: Final = {"$ifNull": ["$added_at", _NOW]}
_TURN: Final = [
    {"$subtract": [{"$ifNull": ["$free_at", _ADDED_AT]}, _ADDED_AT]},
    {"$subtract": [{"$ifNull": ["$claimed_at", _NOW]}, _ADDED_AT]},
    {"$subtract": [_NOW, _ADDED_AT]},
]
"""The turn that ends now, as milliseconds since the slice was added: free, claimed, ended."""
_TURNS: Final = {
    "$cond": [
        {"$lte": ["$attempt", MOST_TURNS]},
        {"$concatArrays": [{"$ifNull": ["$turns", []]}, _TURN]},
        {"$ifNull": ["$turns", []]},
    ]
}

INDEXES: Final = (
    IndexModel([("campaign", ASCENDING), ("kind", ASCENDING)], name="open", partialFilterExpression={"state": "open"}),
    IndexModel([("run", ASCENDING), ("state", ASCENDING)], name="run"),
    IndexModel([("ended_at", ASCENDING)], name="ended", partialFilterExpression={"ended_at": {"$exists": True}}),
)


@named_queries("slices")
class Slices:
    """Slices: written once with deterministic ids, claimed, checkpointed, closed.

    `now` dates their arrival: MongoDB's clock does not date inserted documents to the millisecond.
    """

    def __init__(self, database: Database[Document], now: Callable[[], Instant] = _CLOCK.system_now) -> None:
        self._now = now
        self._all: Collection[Document] = database.get_collection(
            "slices", write_concern=MAJORITY, read_concern=READ_MAJORITY
        )

    def add(self, pieces: Sequence[Slice]) -> None:
        """Insert slices; existing ones (same deterministic id) stay unchanged."""
        added_at = moment(self._now())
        insert_new(self._all, [{**slice_document(piece), "added_at": added_at} for piece in pieces])

    def get(self, slice_id: str) -> Slice | None:
        """Return one slice. Index: `_id`."""
        raw = self._all.find_one({"_id": slice_id})
        return None if raw is None else read_slice(raw)

    def claim(self, slice_id: str, token: str, lease: timedelta) -> Slice | None:
        """Claim an open, free slice whose time has come; the attempt counts from now. Index: `_id`.

        Return None if the slice is closed, held, or put off. Expired-lease recovery frees a lease that ran out and
        counts it.
        """
        raw = self._all.find_one_and_update(
            {
                "_id": slice_id,
                "state": "open",
                "lease": {"$exists": False},
                "$expr": {"$lte": [{"$ifNull": ["$not_before", _NOW]}, _NOW]},
            },
            [
                {
                    "$set": {
                        "lease": {"token": token, "until": {"$add": [_NOW, millis(lease)]}},
                        "claimed_at": _NOW,
                        "attempt": {"$add": ["$attempt", 1]},
                        "progressed": False,
                    }
                },
                {"$unset": ["rung_at", "not_before"]},
            ],
            return_document=ReturnDocument.AFTER,
        )
        return None if raw is None else read_slice(raw)

    def checkpoint(self, slice_id: str, token: str, cursor: str, results: Mapping[str, int], lease: timedelta) -> bool:
        """Move the cursor and renew the lease; return False if the lease is lost. Index: `_id`."""
        done = self._all.update_one(
            {"_id": slice_id, "lease.token": token, "state": "open", "$expr": {"$gt": ["$lease.until", _NOW]}},
            [
                {
                    "$set": {
                        "cursor": {"$literal": cursor},
                        "results": {"$literal": dict(results)},
                        "progressed": True,
                        "lease.until": {"$add": [_NOW, millis(lease)]},
                        "errors": 0,
                    }
                },
                {"$unset": ["broken_at", "failure"]},
            ],
        )
        return done.matched_count == 1

    def close(self, slice_id: str, token: str, state: SliceState, results: Mapping[str, int]) -> bool:
        """End a slice that is held under `token`; return False if the lease is lost. Index: `_id`."""
        done = self._all.update_one(
            {"_id": slice_id, "lease.token": token, "state": "open"},
            [
                {
                    "$set": {
                        "state": state.value,
                        "results": {"$literal": dict(results)},
                        "ended_at": _NOW,
                        "worked": _WORKED,
                        "turns": _TURNS,
                    }
                },
                {"$unset": ["lease", "claimed_at", "rung_at", "failure", "free_at"]},
            ],
        )
        return done.matched_count == 1

    def release(
        self,
        slice_id: str,
        token: str,
        *,
        after: timedelta | None,
        suspect: bool,
        deaths: int,
        errors: int,
        broken: bool = False,
        failure: str | None = None,
        overran: bool = False,
    ) -> bool:
        """Release a slice, to be claimed after `after`, with its record of failures. Index: `_id`.

        `broken` says that a batch was broken off. `failure` is the reason of the exception, without personal data.
        `overran` says that its holder exceeded the time limit of the lane.
        """
        put: Document = {"suspect": suspect, "deaths": deaths, "errors": errors, **_ending_turn(after)}
        if broken:
            put["broken_at"] = _BROKEN_AT
        if failure is not None:
            put["failure"] = {
                "reason": {"$literal": failure},
                "since": {"$ifNull": ["$failure.since", {"$toLong": _NOW}]},
                "count": {"$add": [{"$ifNull": ["$failure.count", 0]}, 1]},
            }
        if overran:
            put |= {"slow": True, "overruns": {"$add": [{"$ifNull": ["$overruns", 0]}, 1]}}
        done = self._all.update_one(
            {"_id": slice_id, "lease.token": token, "state": "open"},
            [{"$set": put}, {"$unset": ["lease", "claimed_at", "rung_at"]}],
        )
        return done.matched_count == 1

    def waiting(self, ring_again: timedelta, limit: int) -> list[Waiting]:
        """Return open slices for the dispatcher, at most `limit`, by id.

        A message enqueued longer ago than `ring_again` counts as lost. Index: `open` (partial, it contains only open
        slices).
        """
        found = self._all.aggregate(
            [
                {"$match": {"state": "open"}},
                {"$sort": {"_id": 1}},
                {"$limit": limit},
                {
                    "$project": {
                        "workspace": 1,
                        "campaign": 1,
                        "kind": 1,
                        "suspect": 1,
                        "deaths": 1,
                        "errors": 1,
                        "held": {"$ne": [{"$type": "$lease"}, "missing"]},
                        "rung": {"$gt": [{"$ifNull": ["$rung_at", EPOCH]}, {"$subtract": [_NOW, millis(ring_again)]}]},
                        "ready": {"$lte": [{"$ifNull": ["$not_before", _NOW]}, _NOW]},
                        "broken_for": {"$subtract": [_NOW, "$broken_at"]},
                        "failure": 1,
                        "worked": _WORKED,
                        "overruns": 1,
                        "slow": 1,
                    }
                },
            ],
            hint="open",
        )
        return [
            Waiting(
                raw["_id"],
                raw["workspace"],
                raw["campaign"],
                SliceKind(raw["kind"]),
                raw["suspect"],
                raw["held"],
                raw["rung"],
                raw["ready"],
                raw["deaths"],
                raw["errors"],
                raw["broken_for"],
                Failure(**raw["failure"]) if "failure" in raw else None,
                raw["worked"],
                raw.get("overruns", 0),
                raw.get("slow", False),
            )
            for raw in found
        ]

    def worked(self, ids: Sequence[str]) -> dict[str, int]:
        """Return how long (ms) workers have held slices, by id; without those that do not exist. Index: `_id`."""
        found = self._all.find({"_id": {"$in": list(ids)}}, {"worked": 1})
        return {raw["_id"]: int(raw.get("worked", 0)) for raw in found}

    def ring(self, ids: Sequence[str], lane: str) -> None:
        """Record that messages for these unclaimed slices are about to be enqueued in a lane. Index: `_id`."""
        self._all.update_many(
            {"_id": {"$in": list(ids)}, "state": "open", "lease": {"$exists": False}},
            [{"$set": {"rung_at": _NOW, "lane": {"$literal": lane}}}],
        )

    def expired(self) -> list[Expired]:
        """Return slices whose lease ran out by MongoDB's clock. Index: `open`."""
        found = self._all.find(
            {"state": "open", "$expr": {"$lt": [{"$ifNull": ["$lease.until", _NOW]}, _NOW]}}, hint="open"
        )
        return [Expired(read_slice(raw), raw["lease"]["token"], raw.get("progressed", False)) for raw in found]

    def free(self, slice_id: str, token: str, *, suspect: bool, deaths: int, after: timedelta | None) -> bool:
        """Free a slice whose lease `token` ran out, and store its new failure counts. Index: `_id`."""
        put: Document = {"suspect": suspect, "deaths": deaths, "broken_at": _BROKEN_AT, **_ending_turn(after)}
        done = self._all.update_one(
            {"_id": slice_id, "state": "open", "lease.token": token, "$expr": {"$lt": ["$lease.until", _NOW]}},
            [{"$set": put}, {"$unset": ["lease", "claimed_at", "rung_at"]}],
        )
        return done.matched_count == 1

    def end_unclaimed(self, slice_id: str, state: SliceState) -> bool:
        """End an open slice that nobody holds (split, dropped, dead). Index: `_id`."""
        done = self._all.update_one(
            {"_id": slice_id, "state": "open", "lease": {"$exists": False}},
            [{"$set": {"state": state.value, "ended_at": _NOW}}, {"$unset": ["rung_at"]}],
        )
        return done.matched_count == 1

    def drop_unclaimed(self, run: str) -> int:
        """Drop the slices of a run that nobody holds; return how many. Index: `run`."""
        done = self._all.update_many(
            {"run": run, "state": "open", "lease": {"$exists": False}},
            [{"$set": {"state": SliceState.DROPPED.value, "ended_at": _NOW}}, {"$unset": ["rung_at"]}],
        )
        return done.modified_count

    def has_open(self, run: str) -> bool:
        """Whether a slice of the run is open, read with majority. Index: `run`, covered."""
        return self._all.find_one({"run": run, "state": "open"}, {"_id": 0, "run": 1}, hint="run") is not None

    def campaigns_with_open(self, kind: SliceKind) -> set[str]:
        """Return the uids of campaigns with an open slice of one kind. Index: `open`, covered."""
        found = self._all.find({"kind": kind.value, "state": "open"}, {"_id": 0, "campaign": 1}, hint="open")
        return {raw["campaign"] for raw in found}

    def open_of(self, campaign: str, limit: int) -> list[Slice]:
        """Return up to `limit` open slices of a campaign, for its page. Index: `open`."""
        found = self._all.find({"campaign": campaign, "state": "open"}, hint="open").limit(limit)
        return [read_slice(raw) for raw in found]

    def of_run(self, run: str) -> list[Slice]:
        """Return every slice of a run. Index: `run`."""
        return [read_slice(raw) for raw in self._all.find({"run": run}, hint="run")]

    def recorded(self, within: timedelta) -> list[SliceRecord]:
        """Return the slices that ended within the last `within`, in no order. Index: `ended`.

        A slice that ended before the engine recorded turns has none, and neither has one that nobody claimed.
        """
        wanted = {
            "ended_at": {"$exists": True},
            "$expr": {"$gte": ["$ended_at", {"$subtract": [_NOW, millis(within)]}]},
        }
        return [read_slice_record(raw) for raw in self._all.find(wanted, SLICE_RECORD, hint="ended")]

    def ended_between(self, after: Instant, until: Instant) -> list[EndedSlice]:
        """Return the slices that ended after one instant and up to another (MongoDB's clock). Index: `ended`."""
        wanted = {"ended_at": {"$gt": moment(after), "$lte": moment(until)}}
        fields = dict.fromkeys(("campaign", "lane", "state", "turns", "worked", "results"), 1)
        return [_ended_slice(raw) for raw in self._all.find(wanted, fields, hint="ended")]

    def forget_ended(self, older_than: timedelta) -> int:
        """Delete slices that ended longer ago than `older_than`; return how many. Index: `ended`."""
        wanted = {
            "ended_at": {"$exists": True},
            "$expr": {"$lt": ["$ended_at", {"$subtract": [_NOW, millis(older_than)]}]},
        }
        return self._all.delete_many(wanted, hint="ended").deleted_count


def _ended_slice(raw: Document) -> EndedSlice:
    numbers = [int(number) for number in raw.get("turns", ())]
    turns = tuple(map(Turn, numbers[::3], numbers[1::3], numbers[2::3]))
    results = raw.get("results", {})
    return EndedSlice(
        campaign=raw["campaign"],
        lane=raw.get("lane", "none"),
        state=raw["state"],
        turns=tuple((turn.wait / 1e3, turn.held / 1e3) for turn in turns),
        worked=raw.get("worked", 0) / 1e3,
        users=int(results.get("users", 0)),
        sent=int(results.get("sent", 0)),
    )


def _ending_turn(after: timedelta | None) -> Document:
    """Return the fields of a slice that a worker gives up now, to be claimed after `after`."""
    free_at: object = _NOW if after is None else {"$add": [_NOW, millis(after)]}
    ending = {"worked": _WORKED, "turns": _TURNS, "free_at": free_at}
    return ending if after is None else {**ending, "not_before": free_at}


NAMED: Final[Mapping[str, str]] = {
    "slices.waiting": "open",
    "slices.expired": "open",
    "slices.has_open": "run",
    "slices.campaigns_with_open": "open",
    "slices.open_of": "open",
    "slices.of_run": "run",
    "slices.recorded": "ended",
    "slices.ended_between": "ended",
}
"""The named queries and the index each relies on."""
