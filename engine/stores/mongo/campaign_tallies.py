"""The latest exact counts of each campaign, and what its slices cost.

`{_id: uid, workspace, campaign, at, took, final, closed, ending, open, entered, active, exited: [{name, n}], holdout,
converted, converted_holdout, last_entered, messages: [{name, states: [{name, n}]}], failures: [{reason, count,
messages, example, example_message}], outcomes: [{channel, outcome, n}], unfit, cost: {worked, users, sent}, cost_to}`;
`worked` is in ms, `at` and `cost_to` are system time. Names stand in lists: they may contain any character.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

from pymongo import ASCENDING, DESCENDING, IndexModel, UpdateOne
from pymongo.collection import Collection as MongoCollection
from pymongo.database import Database

from engine.clock import Instant
from engine.domain.campaign_progress import Tally, TallyHead, TallyTotals, WorkspaceTotals
from engine.domain.counts import CampaignCounts, FailureCount, MessageCounts
from engine.domain.document import Document
from engine.domain.metric_totals import CampaignCost, NamedCost
from engine.query_metrics import named_queries

INDEXES: Final = (IndexModel([("open", ASCENDING), ("cost.worked", DESCENDING)], name="cost"),)
_ALL: Final[Document] = {"_id": {"$gt": ""}, "at": {"$exists": True}}


@named_queries("tallies")
class Tallies:
    """The `campaign_tallies` collection, written without majority: the next count replaces a lost one."""

    def __init__(self, database: Database[Document]) -> None:
        self._all: MongoCollection[Document] = database.get_collection("campaign_tallies")

    def write(
        self, uid: str, workspace: str, campaign: str, tally: Tally, channels: Mapping[str, str], *, unfit: bool
    ) -> None:
        """Replace the tally of a campaign; `channels` gives the channel of each message. Index: `_id`.

        `unfit` says that the counts do not add up.
        """
        fields = _document(tally, channels) | {"workspace": workspace, "campaign": campaign, "unfit": unfit}
        self._all.update_one({"_id": uid}, {"$set": fields}, upsert=True)

    def of(self, uids: Collection[str]) -> dict[str, Tally]:
        """Return the tallies of campaigns, by uid; without those that were not counted yet. Index: `_id`."""
        wanted = {"_id": {"$in": list(uids)}, "at": {"$exists": True}}
        return {raw["_id"]: _tally(raw) for raw in self._all.find(wanted)}

    def heads(self) -> dict[str, TallyHead]:
        """Return when each tally was made and of what, by uid. Index: `_id_`."""
        fields = dict.fromkeys(("at", "took", "final", "closed", "ending"), 1)
        return {raw.pop("_id"): TallyHead(**raw) for raw in self._all.find(_ALL, fields, hint="_id_")}

    def totals(self) -> TallyTotals:
        """Return the sums over all tallies: one document by workspace, channel and outcome. Index: `_id_`.

        Reads each tally once: 5,000 take some 30 ms.
        """
        summed = ("entered", "active", "holdout", "converted", "converted_holdout")
        answer = self._all.aggregate(
            [
                {"$match": _ALL},
                {"$project": dict.fromkeys(("workspace", "at", "final", "outcomes", "unfit", *summed), 1)},
                {
                    "$facet": {
                        "workspaces": [
                            {
                                "$group": {
                                    "_id": "$workspace",
                                    "campaigns": {"$sum": 1},
                                    "unfit": {"$sum": {"$cond": ["$unfit", 1, 0]}},
                                    "oldest": {"$min": {"$cond": ["$final", None, "$at"]}},
                                    **{name: {"$sum": f"${name}"} for name in summed},
                                }
                            }
                        ],
                        "outcomes": [
                            {"$unwind": "$outcomes"},
                            {
                                "$group": {
                                    "_id": {
                                        "w": "$workspace",
                                        "c": "$outcomes.channel",
                                        "o": "$outcomes.outcome",
                                    },
                                    "n": {"$sum": "$outcomes.n"},
                                }
                            },
                        ],
                    }
                },
            ],
            hint="_id_",
        ).next()
        deliveries: dict[str, dict[tuple[str, str], int]] = {}
        for raw in answer["outcomes"]:
            group = raw["_id"]
            deliveries.setdefault(group["w"], {})[group["c"], group["o"]] = raw["n"]
        found = answer["workspaces"]
        return TallyTotals(
            {
                raw["_id"]: WorkspaceTotals(
                    **{name: raw[name] for name in summed}, deliveries=deliveries.get(raw["_id"], {})
                )
                for raw in found
            },
            sum(raw["campaigns"] for raw in found),
            sum(raw["unfit"] for raw in found),
            min((raw["oldest"] for raw in found if raw["oldest"] is not None), default=None),
        )

    def charge(self, costs: Mapping[str, CampaignCost], until: Instant) -> None:
        """Add to the cost of campaigns what their slices cost that ended up to `until`; repeating it adds nothing.

        Index: `_id`.
        """
        if not costs:
            return
        new = {"$lt": [{"$ifNull": ["$cost_to", 0]}, until]}
        writes = []
        for uid, cost in costs.items():
            amounts = {"worked": round(cost.worked * 1e3), "users": cost.users, "sent": cost.sent}
            added = {
                name: {"$add": [{"$ifNull": [f"$cost.{name}", 0]}, {"$cond": [new, amount, 0]}]}
                for name, amount in amounts.items()
            }
            fields = {"cost": added, "open": {"$ifNull": ["$open", True]}}
            later = {"cost_to": {"$max": ["$cost_to", until]}}
            writes.append(UpdateOne({"_id": uid}, [{"$set": fields}, {"$set": later}], upsert=True))
        self._all.bulk_write(writes, ordered=False)

    def dearest(self, limit: int) -> list[NamedCost]:
        """Return the campaigns that may still change and cost most, at most `limit`, the dearest first. Index: `cost`.

        Those that were not counted yet have no name and are left out.
        """
        found = self._all.find(
            {"open": True, "cost.worked": {"$gt": 0}}, {"workspace": 1, "campaign": 1, "cost": 1}, hint="cost"
        ).sort([("open", 1), ("cost.worked", -1)])
        return [
            NamedCost(raw["workspace"], raw["campaign"], _cost(raw["cost"]))
            for raw in found.limit(limit)
            if "campaign" in raw
        ]


def _cost(raw: Document) -> CampaignCost:
    return CampaignCost(raw["worked"] / 1e3, raw["users"], raw["sent"])


def _document(tally: Tally, channels: Mapping[str, str]) -> Document:
    counts = tally.counts
    outcomes: Counter[tuple[str, str]] = Counter()
    for name, message in counts.messages.items():
        for state, n in message.states.items():
            outcomes[channels.get(name, "email"), state.partition("(")[0]] += n
    return {
        "at": tally.at,
        "took": tally.took,
        "final": tally.final,
        "closed": tally.closed,
        "ending": tally.ending,
        "open": not tally.final,
        "entered": counts.entered,
        "active": counts.active,
        "exited": _pairs(counts.exited),
        "holdout": counts.holdout,
        "converted": counts.converted,
        "converted_holdout": counts.converted_holdout,
        "last_entered": counts.last_entered,
        "messages": [
            {"name": name, "decided": message.decided, "states": _pairs(message.states)}
            for name, message in sorted(counts.messages.items())
        ],
        "failures": [
            {
                "reason": failure.reason,
                "count": failure.count,
                "messages": list(failure.messages),
                "example": failure.example,
                "example_message": failure.example_message,
            }
            for failure in tally.failures
        ],
        "outcomes": [
            {"channel": channel, "outcome": outcome, "n": n} for (channel, outcome), n in sorted(outcomes.items())
        ],
    }


def _pairs(counts: Mapping[str, int]) -> list[Document]:
    return [{"name": name, "n": n} for name, n in sorted(counts.items())]


def _mapping(pairs: list[Document]) -> dict[str, int]:
    return {pair["name"]: pair["n"] for pair in pairs}


def _tally(raw: Document) -> Tally:
    counts = CampaignCounts(
        entered=raw["entered"],
        active=raw["active"],
        exited=_mapping(raw["exited"]),
        holdout=raw["holdout"],
        converted=raw["converted"],
        converted_holdout=raw["converted_holdout"],
        messages={
            message["name"]: MessageCounts(message["decided"], _mapping(message["states"]))
            for message in raw["messages"]
        },
        last_entered=raw["last_entered"],
    )
    failures = tuple(
        FailureCount(one["reason"], one["count"], tuple(one["messages"]), one["example"], one["example_message"])
        for one in raw["failures"]
    )
    return Tally(counts, raw["at"], raw["took"], raw["final"], raw["closed"], raw["ending"], failures)


NAMED: Final[Mapping[str, str]] = {
    "tallies.of": "_id_",
    "tallies.heads": "_id_",
    "tallies.totals": "_id_",
    "tallies.dearest": "cost",
}
"""The named queries and the index each relies on."""
