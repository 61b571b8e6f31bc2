"""Counts of a campaign, computed from its enrolments and never incremented separately."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pymongo.collection import Collection
from pymongo.database import Database

from engine.domain.counts import CampaignCounts, CountedPage, FailureCount, MessageCounts
from engine.domain.document import Document
from engine.query_metrics import named_queries

DAY: Final = 86_400_000
"""Milliseconds of a day."""

_ON_ITS_WAY: Final[Document] = {"$cond": [{"$gt": ["$outgoing", None]}, ["$outgoing"], []]}
_ALL_DELIVERIES: Final[Document] = {"$concatArrays": ["$settled", _ON_ITS_WAY]}
"""The settled deliveries of an enrolment and the one on its way."""

_BY_ENROLMENT: Final[list[Document]] = [
    {
        "$group": {
            "_id": {"state": "$state", "reason": "$reason", "holdout": "$holdout"},
            "n": {"$sum": 1},
            "last": {"$max": "$entered_at"},
            "converted": {"$sum": {"$cond": [{"$gt": ["$converted_at", None]}, 1, 0]}},
        }
    }
]
_BY_DELIVERY: Final[list[Document]] = [
    {"$unwind": "$deliveries"},
    {
        "$group": {
            "_id": {"m": "$deliveries.message", "s": "$deliveries.state", "r": "$deliveries.reason"},
            "n": {"$sum": 1},
        }
    },
]
_FAILED: Final[Document] = {"$filter": {"input": "$settled", "cond": {"$eq": ["$$this.state", "failed"]}}}
_BY_REASON: Final[list[Document]] = [
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
"""The stages that count failed deliveries by reason, from enrolments with a list of them (`failed`)."""


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
        totals = self._all.aggregate(
            [
                {"$match": {"_id": {"$gte": prefix, "$lt": prefix[:-1] + "0"}}},
                {"$set": {"deliveries": _ALL_DELIVERIES}},
                {"$facet": {"stays": _BY_ENROLMENT, "deliveries": _BY_DELIVERY}},
            ]
        ).next()
        return _counts(totals["stays"], totals["deliveries"])

    def page(self, prefix: str, after: str, limit: int) -> CountedPage:
        """Return the counts and failures of the next enrolments of a campaign, at most `limit`, in the order of ids.

        `after` is the last id of the page before, empty for the first page. Index: `_id` range; reads at most `limit`
        documents, so that other work of MongoDB goes on between two pages.
        """
        page = self._all.aggregate(
            [
                {"$match": {"_id": {"$gt": after or prefix, "$lt": prefix[:-1] + "0"}}},
                {"$sort": {"_id": 1}},
                {"$limit": limit},
                {"$set": {"deliveries": _ALL_DELIVERIES}},
                {
                    "$facet": {
                        "stays": _BY_ENROLMENT,
                        "deliveries": _BY_DELIVERY,
                        "failures": [
                            {"$match": {"settled.state": "failed"}},
                            {"$project": {"user": 1, "failed": _FAILED}},
                            *_BY_REASON,
                        ],
                        "page": [{"$group": {"_id": None, "n": {"$sum": 1}, "last": {"$max": "$_id"}}}],
                    }
                },
            ]
        ).next()
        read: Document = page["page"][0] if page["page"] else {"n": 0}
        last = read["last"] if read["n"] >= limit else None
        return CountedPage(_counts(page["stays"], page["deliveries"]), tuple(map(_failure, page["failures"])), last)

    def failures(self, prefix: str) -> list[FailureCount]:
        """Return the failed deliveries of a campaign by reason, the most frequent first.

        The campaign's enrolment ids begin with `prefix`. Index: `_id` range.
        """
        totals = self._all.aggregate(
            [
                {"$match": {"_id": {"$gte": prefix, "$lt": prefix[:-1] + "0"}, "settled.state": "failed"}},
                {"$project": {"user": 1, "failed": _FAILED}},
                *_BY_REASON,
            ]
        )
        return [_failure(raw) for raw in totals]

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


def _failure(raw: Document) -> FailureCount:
    example = raw["example"]
    return FailureCount(raw["_id"], raw["n"], tuple(sorted(raw["messages"])), example["user"], example["message"])


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


NAMED: Final[Mapping[str, str]] = {
    "counts.of": "_id_",
    "counts.page": "_id_",
    "counts.failures": "_id_",
    "counts.quiet_stretches": "_id_",
}
"""The named queries and the index each relies on."""
