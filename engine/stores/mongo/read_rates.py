"""Measurements of runs: users read per second by access path. One document; the last writer wins."""

from __future__ import annotations

from datetime import timedelta

from pymongo.collection import Collection
from pymongo.database import Database

from engine.decisions.access_path_cost import FIRST_RATES, SEND_RATE, Rates
from engine.domain.document import Document
from engine.domain.work import AccessPath
from engine.query_metrics import named_queries


@named_queries("rates")
class ReadRates:
    """The measured rates of an installation."""

    def __init__(self, database: Database[Document]) -> None:
        self._all: Collection[Document] = database.get_collection("settings")

    def read(self) -> Rates:
        """Return the rates; a rate that was not measured yet has its initial value. Index: `_id`."""
        raw = self._all.find_one({"_id": "rates"}) or {}
        measured = {AccessPath(path): float(rate) for path, rate in raw.get("read", {}).items()}
        return Rates({**FIRST_RATES, **measured}, send=float(raw.get("send", SEND_RATE)))

    def measured(self, path: AccessPath, users: int, took: timedelta) -> None:
        """Update the rate of `path` after a run has read so many users in so much worker time. Index: `_id`."""
        before = self.read()
        after = before.after(path, users, took)
        if after != before:
            update = {"$set": {f"read.{path.value}": after.read[path]}}
            self._all.update_one({"_id": "rates"}, update, upsert=True)

    def sent(self, messages: int, took: timedelta) -> None:
        """Update the send rate after a slice has sent so many messages in so much worker time. Index: `_id`."""
        before = self.read()
        after = before.sent(messages, took)
        if after != before:
            self._all.update_one({"_id": "rates"}, {"$set": {"send": after.send}}, upsert=True)
