"""Sums that only rise, in two documents of the collection `metric_totals`, to which the clock adds.

`{_id: "queries", horizon, ids: [{id, until}], sums: {QUERY: {calls, failed, documents, micros, b: {"0": n, ...}}}}` and
`{_id: "slices", to, pending, worked, users, sent, sums: {LANE: {slices: {STATE: n}, users, waits: {micros, b}, works:
{micros, b}}}}`. `b` counts by the number of the bucket (`engine.domain.metric_totals`); its counts are not cumulative.
Each addition is one update that names what it adds to, so none is made twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.database import Database

from engine.clock import Instant, instant, moment
from engine.domain.document import Document
from engine.domain.metric_totals import (
    QUERY_BOUNDS,
    TURN_BOUNDS,
    Buckets,
    CampaignCost,
    FoldedQueries,
    FoldedSlices,
    LaneTotal,
    QueryTotal,
)
from engine.query_metrics import named_queries
from engine.stores.mongo.client import MAJORITY

QUERIES: Final = {"_id": "queries"}
SLICES: Final = {"_id": "slices"}

MARGIN: Final = 20_000
"""Milliseconds after its end in which a slice may still become visible to a majority read."""

LONGEST: Final = 300_000
"""Milliseconds of ended slices that one step adds at most: a clock that was away catches up in steps."""


@named_queries("totals")
class MetricTotals:
    """The collection `metric_totals`."""

    def __init__(self, database: Database[Document]) -> None:
        aware = database.codec_options.with_options(tz_aware=True)
        self._all: Collection[Document] = database.get_collection(
            "metric_totals", codec_options=aware, write_concern=MAJORITY
        )

    def queries(self) -> FoldedQueries | None:
        """Return the sums of the stretches that are over; None before the first clock began them. Index: `_id`."""
        raw = self._all.find_one(QUERIES)
        if raw is None:
            return None
        sums = {_plain(name): _query(one) for name, one in raw.get("sums", {}).items()}
        return FoldedQueries(raw["horizon"], {one["id"]: one["until"] for one in raw["ids"]}, sums)

    def begin_queries(self, horizon: Instant) -> None:
        """Begin the sums at `horizon`, unless they have begun. Index: `_id`."""
        self._all.update_one(QUERIES, {"$setOnInsert": {"horizon": horizon, "ids": []}}, upsert=True)

    def fold_queries(
        self, horizon: Instant, ids: Mapping[str, Instant], sums: Mapping[str, QueryTotal], before: Instant
    ) -> bool:
        """Add the sums of the stretches `ids`, if the horizon is still `horizon`, and move it to `before`.

        Return False if another clock came first. Stretches last written before `before` are no longer named. Index:
        `_id`.
        """
        raw = self._all.find_one(QUERIES, {"horizon": 1, "ids": 1})
        if raw is None or raw["horizon"] != horizon or any(one["id"] in ids for one in raw["ids"]):
            return False
        known = [*raw["ids"], *({"id": name, "until": until} for name, until in ids.items())]
        update: Document = {"$set": {"horizon": before, "ids": [one for one in known if one["until"] >= before]}}
        added: dict[str, int] = {}
        for name, total in sums.items():
            place = f"sums.{_field(name)}"
            added |= {
                f"{place}.calls": total.calls,
                f"{place}.failed": total.failed,
                f"{place}.documents": total.documents,
                **_increments(place, total.durations),
            }
        if added:
            update["$inc"] = added
        return self._all.update_one({**QUERIES, "horizon": horizon, "ids": raw["ids"]}, update).matched_count == 1

    def slices(self) -> FoldedSlices | None:
        """Return the sums of ended slices; None before the first clock began them. Index: `_id`."""
        raw = self._all.find_one({**SLICES, "to": {"$exists": True}})
        if raw is None:
            return None
        lanes = {
            _plain(name): LaneTotal(
                dict(one.get("slices", {})),
                one.get("users", 0),
                _buckets(one.get("waits", {}), TURN_BOUNDS),
                _buckets(one.get("works", {}), TURN_BOUNDS),
            )
            for name, one in raw.get("sums", {}).items()
        }
        cost = CampaignCost(raw.get("worked", 0) / 1e3, raw.get("users", 0), raw.get("sent", 0))
        return FoldedSlices(instant(raw["to"]), lanes, cost)

    def next_slices(self) -> tuple[Instant, Instant]:
        """Return after and until when (MongoDB's clock) the slices ended that are to be added next. Index: `_id`.

        A step that was broken off is repeated with the same bounds. The sums begin at the first call.
        """
        settled: Document = {"$subtract": ["$$NOW", MARGIN]}
        next_end: Document = {"$max": ["$to", {"$min": [settled, {"$add": ["$to", LONGEST]}]}]}
        step: list[Document] = [
            {"$set": {"to": {"$ifNull": ["$to", settled]}}},
            {"$set": {"pending": {"$ifNull": ["$pending", next_end]}}},
        ]
        raw: Any = self._all.find_one_and_update(SLICES, step, upsert=True, return_document=ReturnDocument.AFTER)
        return instant(raw["to"]), instant(raw["pending"])

    def fold_slices(self, until: Instant, lanes: Mapping[str, LaneTotal], cost: CampaignCost) -> bool:
        """Add the slices of the step that `next_slices` named; return False if another clock did. Index: `_id`."""
        added: dict[str, int] = {"worked": round(cost.worked * 1e3), "users": cost.users, "sent": cost.sent}
        for name, total in lanes.items():
            place = f"sums.{_field(name)}"
            added |= {f"{place}.slices.{state}": count for state, count in total.slices.items()}
            added[f"{place}.users"] = total.users
            added |= _increments(f"{place}.waits", total.waits) | _increments(f"{place}.works", total.works)
        update = {"$inc": added, "$set": {"to": moment(until)}, "$unset": {"pending": ""}}
        return self._all.update_one({**SLICES, "pending": moment(until)}, update).matched_count == 1


def _increments(place: str, buckets: Buckets) -> dict[str, int]:
    counts = {f"{place}.b.{number}": count for number, count in enumerate(buckets.counts) if count}
    return {**counts, f"{place}.micros": buckets.micros}


def _buckets(raw: Mapping[str, Any], bounds: Sequence[float]) -> Buckets:
    counts = raw.get("b", {})
    return Buckets(tuple(counts.get(str(n), 0) for n in range(len(bounds) + 1)), raw.get("micros", 0))


def _query(raw: Mapping[str, Any]) -> QueryTotal:
    return QueryTotal(raw.get("calls", 0), raw.get("failed", 0), raw.get("documents", 0), _buckets(raw, QUERY_BOUNDS))


def _field(name: str) -> str:
    """Return a name as the name of a field, which may contain neither `.` nor `$`."""
    return name.replace("%", "%25").replace(".", "%2E").replace("$", "%24")


def _plain(field: str) -> str:
    return field.replace("%2E", ".").replace("%24", "$").replace("%25", "%")


NAMED: Final[Mapping[str, str]] = {"totals.queries": "_id_", "totals.slices": "_id_"}
"""The named queries and the index each relies on."""
