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
from engine.measuring import named_queries
from engine.stores.connect import MAJORITY


@dataclass(frozen=True, slots=True)
class CampaignTime:
    """What campaign time is: the system's (`set_at` None), or a moment that stands until it is advanced."""

    set_at: Instant | None


@named_queries("times")
class CampaignTimes:
    """The one document that says what campaign time is."""

    def __init__(self, database: Database[Document]) -> None:
        self._all: Collection[Document] = database.get_collection("settings", write_concern=MAJORITY)
        self._runs = database.get_collection("runs")

    def read(self) -> CampaignTime:
        """What stands; without a document campaign time is system time. Index: `_id`."""
        raw = self._all.find_one({"_id": "campaign_time"})
        return CampaignTime(None if raw is None else raw["at"])

    def advance(self, to: Instant, system_now: Instant) -> None:
        """Set campaign time to `to`; from then on it stands until it is advanced again.

        Raises `WrongCall` where that would be back: earlier than what was set, or, where campaign time was the
        system's and campaigns have run on it, earlier than now.
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
                f"campaign time moves only forward: it is {format_instant(floor)}, asked for {format_instant(to)}",
                remedy="advance to a later moment, or start with an empty database",
            )
        if standing is None:
            try:
                self._all.insert_one({"_id": "campaign_time", "at": to})
                return
            except DuplicateKeyError:
                pass  # another call came first; the compare-and-set below decides
        done = self._all.update_one({"_id": "campaign_time", "at": {"$lte": to}}, {"$set": {"at": to}})
        if done.matched_count == 0:
            raise WrongCall("campaign time was advanced further by somebody else meanwhile", remedy="read it again")


class StoredClock(SystemClock):
    """Campaign time as MongoDB has it: read each time, for a stale one would decide wrongly."""

    def __init__(self, times: CampaignTimes) -> None:
        self._times = times

    def campaign_now(self) -> Instant:
        """What was set, else system time."""
        return self.campaign_time()[0]

    def campaign_clock(self) -> Callable[[], Instant]:
        """What was set, as it stands now, else system time."""
        at = self._times.read().set_at
        return self.system_now if at is None else lambda: at

    def campaign_time(self) -> tuple[Instant, bool]:
        """Campaign time, and whether it stands until it is advanced."""
        at = self._times.read().set_at
        return (self.system_now(), False) if at is None else (at, True)

    def is_set(self) -> bool:
        """Whether campaign time stands until it is advanced."""
        return self.campaign_time()[1]
