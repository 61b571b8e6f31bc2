"""Measurements of processes: one document per process and stretch of time, deleted after a week.

`{_id: "process id/number", process, began, until, queries: [{name, calls, failed, documents, worst, durations}], tuned:
[{query, size, batches, users, recent, chosen}]}`; `durations` is an encoded HDR histogram.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import pymongo
from pymongo import ASCENDING, IndexModel
from pymongo.collection import Collection
from pymongo.database import Database

from engine.clock import Instant, instant, moment
from engine.decisions.batch_size import Evidence
from engine.domain.document import Document
from engine.query_metrics import Figure, Stretch, Worst, named_queries
from engine.stores.mongo.work_documents import without_none

KEPT: Final = timedelta(days=7)
"""How long measurements are kept: as long as ended runs, so that both cover the same time."""

PATIENCE: Final = 2.0
"""Seconds after which a write is given up: a process that stops must not wait for its statistics."""

INDEXES: Final = (IndexModel([("until", ASCENDING)], name="until", expireAfterSeconds=int(KEPT.total_seconds())),)


@named_queries("statistics")
class Statistics:
    """The `stats` collection, written without majority, because nothing depends on it."""

    def __init__(self, database: Database[Document]) -> None:
        aware = database.codec_options.with_options(tz_aware=True)
        self._all: Collection[Document] = database.get_collection("stats", codec_options=aware)

    def write(self, stretch: Stretch) -> None:
        """Write the measurements of a stretch so far, replacing its earlier document. Index: `_id_`."""
        with pymongo.timeout(PATIENCE):
            self._all.replace_one({"_id": stretch.id}, _document(stretch), upsert=True)

    def since(self, earliest: Instant) -> list[Stretch]:
        """Return the stretches written at or after `earliest` (system time), oldest first. Index: `until`."""
        documents = self._all.find({"until": {"$gte": moment(earliest)}}, hint="until").sort("until", 1)
        return [_stretch(raw) for raw in documents]


def _document(stretch: Stretch) -> Document:
    return {
        "_id": stretch.id,
        "process": stretch.process,
        "began": moment(stretch.began),
        "until": moment(stretch.until),
        "queries": [
            {
                "name": figure.name,
                "calls": figure.calls,
                "failed": figure.failed,
                "documents": figure.documents,
                "durations": figure.durations,
                "worst": without_none(
                    {
                        "seconds": figure.worst.seconds,
                        "documents": figure.worst.documents,
                        "at": figure.worst.at,
                        "campaign": figure.worst.campaign,
                        "campaign_uid": figure.worst.campaign_uid,
                    }
                ),
            }
            for figure in stretch.figures
        ],
        "tuned": [
            {
                "query": query,
                "size": entry.size,
                "batches": entry.batches,
                "users": entry.users,
                "recent": list(entry.recent),
                "chosen": entry.chosen,
            }
            for query, evidence in stretch.tuned.items()
            for entry in evidence
        ],
    }


def _stretch(raw: Document) -> Stretch:
    tuned: dict[str, list[Evidence]] = {}
    for entry in raw["tuned"]:
        evidence = Evidence(entry["size"], entry["batches"], entry["users"], tuple(entry["recent"]), entry["chosen"])
        tuned.setdefault(entry["query"], []).append(evidence)
    figures = [
        Figure(
            entry["name"],
            entry["calls"],
            entry["failed"],
            entry["documents"],
            Worst(**entry["worst"]),
            bytes(entry["durations"]),
        )
        for entry in raw["queries"]
    ]
    return Stretch(raw["_id"], raw["process"], instant(raw["began"]), instant(raw["until"]), figures, tuned)


NAMED: Final[Mapping[str, str]] = {"statistics.since": "until"}
"""The named queries and the index each relies on."""
