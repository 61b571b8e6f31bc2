"""Counts of a campaign, computed from its enrolments and never incremented on the side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pymongo.collection import Collection
from pymongo.database import Database

from engine.domain.counts import CampaignCounts, MessageCounts
from engine.measuring import named_queries
from engine.stores.documents import Document


@named_queries("counts")
class Counts:
    """Aggregations over the enrolments of one campaign."""

    def __init__(self, database: Database[Document]) -> None:
        self._all: Collection[Document] = database.get_collection("enrolments")

    def of(self, prefix: str) -> CampaignCounts:
        """The counts of the campaign whose enrolment ids begin with `prefix` (`w/c/`). Index: `_id` range.

        Each stay is read once, for all numbers: one that changes meanwhile counts as it was or as it is, never as both.
        """
        on_its_way = {"$cond": [{"$gt": ["$outgoing", None]}, ["$outgoing"], []]}
        stays: list[Document] = [
            {
                "$group": {
                    "_id": {"state": "$state", "reason": "$reason", "holdout": "$holdout"},
                    "n": {"$sum": 1},
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
        told = self._all.aggregate(
            [
                {"$match": {"_id": {"$gte": prefix, "$lt": prefix[:-1] + "0"}}},
                {"$set": {"deliveries": {"$concatArrays": ["$settled", on_its_way]}}},
                {"$facet": {"stays": stays, "deliveries": deliveries}},
            ]
        ).next()
        return _counts(told["stays"], told["deliveries"])


def _counts(stays: list[Document], deliveries: list[Document]) -> CampaignCounts:
    exited: dict[str, int] = {}
    active = holdout = converted = converted_holdout = 0
    for raw in stays:
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
    )


NAMED: Final[Mapping[str, str]] = {"counts.of": "_id_"}
"""The named queries and the index each relies on."""
