"""Campaign time: one document, which moves only forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from engine.clock import Instant, SystemClock, format_instant
from engine.domain.document import Document
from engine.errors import WrongCall
from engine.query_metrics import named_queries
from engine.stores.mongo.client import MAJORITY


@dataclass(frozen=True, slots=True)
class CampaignTime:
    """The source of campaign time: system time (`set_at` None), or a fixed moment that holds until it is advanced.

    `moved_at` is the system time at which somebody set it last; None if nobody did, or an earlier version did.
    """

    set_at: Instant | None
    moved_at: Instant | None = None


@named_queries("times")
class CampaignTimes:
    """The store of campaign time: one document."""

    def __init__(self, database: Database[Document]) -> None:
        self._all: Collection[Document] = database.get_collection("settings", write_concern=MAJORITY)
        self._runs = database.get_collection("runs")

    def read(self) -> CampaignTime:
        """Return the current setting; without a document campaign time is system time. Index: `_id`."""
        raw = self._all.find_one({"_id": "campaign_time"})
        return CampaignTime(None) if raw is None else CampaignTime(raw["at"], raw.get("moved_at"))

    def advance(self, to: Instant, system_now: Instant) -> None:
        """Set campaign time to `to`; from then on it stays fixed until it is advanced again.

        Raises `WrongCall` if that would move time back: earlier than the previous setting, or, if campaign time was
        system time and campaigns have run on it, earlier than now.
        """
        standing = self.read().set_at
        floor = (
            standing
            if standing is not None
            else system_now
            if self._runs.find_one({"_id": {"$gte": ""}}, {"_id": 1})
            else None
        )
        if floor is not None and to < floor:
            raise WrongCall(
                f"campaign time moves only forward: it is {format_instant(floor)}, requested {format_instant(to)}",
                remedy="advance to a later moment, or start with an empty database",
            )
        if standing is None:
            try:
                self._all.insert_one({"_id": "campaign_time", "at": to, "moved_at": system_now})
                return
            except DuplicateKeyError:
                pass  # another call came first; the compare-and-set below decides
        moved = {"$set": {"at": to, "moved_at": system_now}}
        done = self._all.update_one({"_id": "campaign_time", "at": {"$lte": to}}, moved)
        if done.matched_count == 0:
            raise WrongCall("another process advanced campaign time further", remedy="read it again")


class StoredClock(SystemClock):
    """Campaign time as MongoDB has it. It is read each time, because a stale value would cause wrong decisions."""

    def __init__(self, times: CampaignTimes) -> None:
        self._times = times

    def campaign_now(self) -> Instant:
        """Return the fixed campaign time, else system time."""
        return self.campaign_time()[0]

    def campaign_clock(self) -> Callable[[], Instant]:
        """Return a function for campaign time: the currently fixed moment, else system time."""
        at = self._times.read().set_at
        return self.system_now if at is None else lambda: at

    def campaign_time(self) -> tuple[Instant, bool]:
        """Return campaign time, and whether it is fixed until it is advanced."""
        at = self._times.read().set_at
        return (self.system_now(), False) if at is None else (at, True)

    def is_set(self) -> bool:
        """Whether campaign time is fixed until it is advanced."""
        return self.campaign_time()[1]
