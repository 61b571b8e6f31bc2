"""The living processes on all machines: each sends a heartbeat every few seconds, and is forgotten after an hour.

`{_id: "host:pid:chance", process, lanes, notes, since, seen, skew, report}`; times are of MongoDB's clock: machines
need not agree. `skew` (ms) is by how much the process's own clock is ahead of it, the way to MongoDB included. `report`
holds `{threads, busy, memory, counts: [[name, total, a second], ...]}`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

import pymongo
from pymongo import ASCENDING, IndexModel
from pymongo.collection import Collection
from pymongo.database import Database

from engine.clock import SystemClock
from engine.domain.document import Document
from engine.domain.processes import Seen
from engine.domain.system_view import ProcessReport
from engine.query_metrics import named_queries

FORGOTTEN: Final = timedelta(hours=1)
PATIENCE: Final = 5.0
"""Seconds after which a heartbeat is given up: the next one is due by then."""

_CLOCK: Final = SystemClock()

NOTHING: Final = ProcessReport()
"""The report of a process that says nothing of itself."""

INDEXES: Final = (IndexModel([("seen", ASCENDING)], name="seen", expireAfterSeconds=int(FORGOTTEN.total_seconds())),)


@named_queries("processes")
class Processes:
    """The `processes` collection, written without majority, because the next heartbeat repeats a lost one."""

    def __init__(self, database: Database[Document]) -> None:
        aware = database.codec_options.with_options(tz_aware=True)
        self._all: Collection[Document] = database.get_collection("processes", codec_options=aware)

    def beat(
        self,
        identity: str,
        process: str,
        lanes: Iterable[str],
        notes: Iterable[str] = (),
        report: ProcessReport = NOTHING,
    ) -> None:
        """Record that a process is alive, which lanes it serves, what it does, and what it does not follow yet.

        Index: `_id`.
        """
        fields = {
            "process": process,
            "lanes": sorted(lanes),
            "notes": [{"$literal": note} for note in notes],
            "seen": "$$NOW",
            "since": {"$ifNull": ["$since", "$$NOW"]},
            "report": {"$literal": _report_document(report)},
            "skew": {"$subtract": [_CLOCK.system_now(), {"$toLong": "$$NOW"}]},
        }
        with pymongo.timeout(PATIENCE):
            self._all.update_one({"_id": identity}, [{"$set": fields}], upsert=True)

    def gone(self, identity: str) -> None:
        """Record that a process has ended. Index: `_id`."""
        with pymongo.timeout(PATIENCE):
            self._all.delete_one({"_id": identity})

    def seen(self) -> list[Seen]:
        """Return the processes alive within the last hour, and how long ago; some dozens, all read through `_id`."""
        ago = {"$subtract": ["$$NOW", "$seen"]}
        documents = self._all.aggregate(
            [{"$match": {"_id": {"$gte": ""}}}, {"$set": {"ago": ago}}, {"$sort": {"_id": 1}}]
        )
        return [_seen(raw) for raw in documents]


def _seen(raw: Document) -> Seen:
    since: datetime = raw["since"]
    ago = timedelta(milliseconds=raw["ago"])
    notes = tuple(raw.get("notes", ()))
    return Seen(
        id=raw["_id"],
        process=raw["process"],
        lanes=tuple(raw["lanes"]),
        since=since.isoformat(timespec="seconds"),
        ago=ago,
        notes=notes,
        skew=raw.get("skew", 0) / 1e3,
        report=_report(raw.get("report")),
    )


def _report_document(report: ProcessReport) -> Document:
    counts = [[name, total, report.rates.get(name, 0.0)] for name, total in report.totals.items()]
    told = {"threads": report.threads, "busy": report.busy, "memory": report.memory, "counts": counts}
    return told | ({"address": report.address} if report.address else {})


def _report(raw: Document | None) -> ProcessReport:
    if raw is None:  # written by a process of an earlier version
        return NOTHING
    counts = raw["counts"]
    rates = {name: rate for name, _, rate in counts if rate}
    totals = {name: total for name, total, _ in counts}
    return ProcessReport(raw["threads"], raw["busy"], raw["memory"], rates, totals, raw.get("address", ""))
