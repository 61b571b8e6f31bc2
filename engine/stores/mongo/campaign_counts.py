"""Counts of a campaign, computed from its enrolments and never incremented separately."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pymongo.collection import Collection
from pymongo.database import Database

from engine.domain.counts import CampaignCounts, FailureCount, MessageCounts
from engine.domain.document import Document
from engine.query_metrics import named_queries

DAY: Final = 86_400_000
"""Milliseconds of a day."""


@named_queries("counts")
class Counts:
    """Aggregations over the enrolments of one campaign."""

    def __init__(self, database: Database[Document]) -> None:
        self._all: Collection[Document] = database.get_collection("enrolments")

    def of(self, prefix: str) -> CampaignCounts:
        """Return the counts of the campaign whose enrolment ids begin with `prefix` (`w/c/`). Index: `_id` range.

        All numbers come from one read of each enrolment. An enrolment that changes meanwhile counts either as it was or
        as it is, never as both.
        """
        on_its_way = {"$cond": [{"$gt": ["$outgoing", None]}, ["$outgoing"], []]}
        by_enrolment: list[Document] = [
            {
                "$group": {
                    "_id": {"state": "$state", "reason": "$reason", "holdout": "$holdout"},
                    "n": {"$sum": 1},
                    "last": {"$max": "$entered_at"},
                    "converted": {"$sum": {"$cond": [{"$gt": ["$converted_at", None]}, 1, 0]}},
                }
            }
        ]
        deliveries: list[Document] = [
            {"$unwind": "$deliveries"},
            {
                "$group": {
                    "_id": {"m": "$deliveries.message", "s": "$deliveries.state", "r": "$deliveries.reason"},
                    "n": {"$sum": 1},
                }
            },
        ]
        totals = self._all.aggregate(
            [
                {"$match": {"_id": {"$gte": prefix, "$lt": prefix[:-1] + "0"}}},
                {"$set": {"deliveries": {"$concatArrays": ["$settled", on_its_way]}}},
                {"$facet": {"stays": by_enrolment, "deliveries": deliveries}},
            ]
        ).next()
        return _counts(totals["stays"], totals["deliveries"])

    def failures(self, prefix: str) -> list[FailureCount]:
        """Return the failed deliveries of a campaign by reason, the most frequent first.

        The campaign's enrolment ids begin with `prefix`. Index: `_id` range.
        """
        failed: Document = {"$filter": {"input": "$settled", "cond": {"$eq": ["$$this.state", "failed"]}}}
        totals = self._all.aggregate(
            [
                {"$match": {"_id": {"$gte": prefix, "$lt": prefix[:-1] + "0"}, "settled.state": "failed"}},
                {"$project": {"user": 1, "failed": failed}},
                {"$unwind": "$failed"},
                {
                    "$group": {
                        "_id": {"$ifNull": ["$failed.reason", "unknown"]},
                        "n": {"$sum": 1},
                        "messages": {"$addToSet": "$failed.message"},
                        "example": {"$min": {"user": "$user", "message": "$failed.message"}},
                    }
                },
                {"$sort": {"n": -1, "_id": 1}},
            ]
        )
        return [
            FailureCount(
                raw["_id"],
                raw["n"],
                tuple(sorted(raw["messages"])),
                raw["example"]["user"],
                raw["example"]["message"],
            )
            for raw in totals
        ]

    def quiet_stretches(self, prefix: str, limit: int) -> dict[int, int]:
        """Return how long nothing happened before something did, in the first `limit` enrolments of a campaign, by key.

        The result maps days, rounded up, to the number of stretches: from entry to the first message, from one message
        to the next, and from the last event before the conversion to the conversion (campaign time). A message counts
        when it settled, a message in progress when it was chosen. Index: `_id` range; reads at most `limit` documents.
        """
        happened: Document = {
            "$concatArrays": [
                ["$entered_at"],
                "$settled.at",
                {"$cond": [{"$gt": ["$outgoing", None]}, ["$outgoing.chosen_at"], []]},
                {"$cond": [{"$gt": ["$converted_at", None]}, ["$converted_at"], []]},
            ]
        }
        before: Document = {"$arrayElemAt": ["$at", {"$subtract": ["$$i", 1]}]}
        days: Document = {"$ceil": {"$divide": [{"$subtract": [{"$arrayElemAt": ["$at", "$$i"]}, before]}, DAY]}}
        stretches = self._all.aggregate(
            [
                {"$match": {"_id": {"$gte": prefix, "$lt": prefix[:-1] + "0"}}},
                {"$sort": {"_id": 1}},
                {"$limit": limit},
                {"$project": {"_id": 0, "at": {"$sortArray": {"input": happened, "sortBy": 1}}}},
                {"$project": {"days": {"$map": {"input": {"$range": [1, {"$size": "$at"}]}, "as": "i", "in": days}}}},
                {"$unwind": "$days"},
                {"$group": {"_id": "$days", "n": {"$sum": 1}}},
            ]
        )
        return {int(raw["_id"]): int(raw["n"]) for raw in stretches}


def _counts(enrolments: list[Document], deliveries: list[Document]) -> CampaignCounts:
    exited: dict[str, int] = {}
    active = holdout = converted = converted_holdout = 0
    for raw in enrolments:
        group = raw["_id"]
        if group["state"] == "active":
            active += raw["n"]
        else:
            exited[group["reason"]] = exited.get(group["reason"], 0) + raw["n"]
        if group.get("holdout"):
            holdout += raw["n"]
            converted_holdout += raw["converted"]
        converted += raw["converted"]
    messages: dict[str, dict[str, int]] = {}
    for raw in deliveries:
        group = raw["_id"]
        state = f"skipped({group['r']})" if group["s"] == "skipped" else group["s"]
        counted = messages.setdefault(group["m"], {})
        counted[state] = counted.get(state, 0) + raw["n"]
    return CampaignCounts(
        entered=active + sum(exited.values()),
        active=active,
        exited=exited,
        holdout=holdout,
        converted=converted,
        converted_holdout=converted_holdout,
        messages={name: MessageCounts(sum(states.values()), states) for name, states in messages.items()},
        last_entered=max((raw["last"] for raw in enrolments), default=None),
    )


NAMED: Final[Mapping[str, str]] = {"counts.of": "_id_", "counts.failures": "_id_", "counts.quiet_stretches": "_id_"}
"""The named queries and the index each relies on."""
