"""Reads for the picture of the installation: open slices by what routes them, and the latest ended ones.

Both are bounded, whatever the number of campaigns and enrolments: open slices by a limit (a running campaign has some
dozens), ended ones by the number that is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from pymongo import DESCENDING
from pymongo.collection import Collection
from pymongo.database import Database

from engine.clock import millis
from engine.domain.document import Document
from engine.domain.slice_record import OpenSlices, SliceRecord, SliceShare
from engine.domain.work import SliceKind
from engine.query_metrics import named_queries
from engine.stores.mongo.work_documents import SLICE_RECORD, read_slice_record

_NOW: Final = "$$NOW"
_HELD: Final = {"$ne": [{"$type": "$lease"}, "missing"]}
_READY: Final = {"$lte": [{"$ifNull": ["$not_before", _NOW]}, _NOW]}
_FREE: Final = {"$and": [{"$not": [_HELD]}, _READY]}
_FREE_FOR: Final = {"$subtract": [_NOW, {"$ifNull": ["$free_at", {"$ifNull": ["$added_at", _NOW]}]}]}


_SHARE: Final = dict.fromkeys(("run", "kind", "state", "first", "until", "cursor", "results"), 1)


@named_queries("lane_work")
class LaneWork:
    """The `slices` collection, read without majority: a picture may be a moment behind."""

    def __init__(self, database: Database[Document]) -> None:
        self._all: Collection[Document] = database.get_collection("slices")

    def open(self, limit: int) -> list[OpenSlices]:
        """Count open slices, at most `limit` of them, by campaign and by what else decides their lane. Index: `open`.

        Times are by MongoDB's clock.
        """
        found = self._all.aggregate(
            [
                {"$match": {"state": "open"}},
                {"$limit": limit},
                {
                    "$group": {
                        "_id": {
                            "campaign": "$campaign",
                            "kind": "$kind",
                            "suspect": "$suspect",
                            "slow": {"$ifNull": ["$slow", False]},
                        },
                        "free": {"$sum": {"$cond": [_FREE, 1, 0]}},
                        "held": {"$sum": {"$cond": [_HELD, 1, 0]}},
                        "all": {"$sum": 1},
                        "oldest": {"$max": {"$cond": [_FREE, _FREE_FOR, None]}},
                    }
                },
            ],
            hint="open",
        )
        return [
            OpenSlices(
                campaign=raw["_id"]["campaign"],
                kind=SliceKind(raw["_id"]["kind"]),
                suspect=raw["_id"]["suspect"],
                slow=raw["_id"]["slow"],
                free=raw["free"],
                held=raw["held"],
                put_off=raw["all"] - raw["free"] - raw["held"],
                oldest=None if raw["oldest"] is None else max(0.0, raw["oldest"] / 1e3),
            )
            for raw in found
        ]

    def of_campaign(self, campaign: str, prefix: str, *, ended: bool, limit: int) -> list[SliceShare]:
        """Return what the slices of a campaign have done so far: the open ones, with `ended` the ended ones as well.

        `prefix` begins the ids of its slices (`w/c/`). Index: `open`, or with `ended` the `_id` range.
        """
        everything: Document = {"_id": {"$gte": prefix, "$lt": f"{prefix[:-1]}0"}}
        query: Document = everything if ended else {"campaign": campaign, "state": "open"}
        found = self._all.find(query, _SHARE, hint="_id_" if ended else "open").limit(limit)
        return [
            SliceShare(
                run=raw.get("run"),
                kind=SliceKind(raw["kind"]),
                open=raw["state"] == "open",
                first=raw["first"],
                until=raw["until"],
                cursor=raw.get("cursor"),
                results=raw.get("results", {}),
            )
            for raw in found
        ]

    def latest(self, within: timedelta, limit: int) -> list[SliceRecord]:
        """Return the slices that ended last, within the last `within` and at most `limit`. Index: `ended`."""
        wanted = {
            "ended_at": {"$exists": True},
            "$expr": {"$gte": ["$ended_at", {"$subtract": [_NOW, millis(within)]}]},
        }
        found = self._all.find(wanted, SLICE_RECORD, hint="ended").sort("ended_at", DESCENDING).limit(limit)
        return [read_slice_record(raw) for raw in found]


NAMED: Final[Mapping[str, str]] = {
    "lane_work.open": "open",
    "lane_work.latest": "ended",
    "lane_work.of_campaign": "_id_ or open",
}
"""The named queries and the index each relies on."""
