"""A play: the steps that operators and time apply to one campaign; any process can restart it after a crash.

The performer drives the use cases as the clock and the actors do, in one thread. A step that was already done does
nothing, so a second performance of the same play continues where a killed one ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

from pymongo.database import Database

from engine.app.app import App
from engine.domain.changes import UserChange
from engine.domain.keys import user_key
from engine.domain.lifecycle import CampaignState
from engine.failpoints import Failpoint
from engine.pipeline.scheduler import tick

Step = Sequence[str | int]
"""`launch`, `settle`, `rounds COUNT` (no settling), `advance INSTANT`, `change USER ...` (to plan gold), `stop`."""

NAME: Final = "play"
"""The campaign of every play."""

MOST_ROUNDS: Final = 200
_PAST: Final = {"$dateSubtract": {"startDate": "$$NOW", "unit": "second", "amount": 1}}


def everywhere(lane: str) -> bool:
    """Serve every lane."""
    return True


class Performer:
    """Perform plays on one application; `asked` holds what its messenger collected, as (what, id, lane)."""

    def __init__(self, app: App, database: Database[dict[str, Any]], asked: deque[tuple[str, str, str]]) -> None:
        self.app = app
        self.database = database
        self.asked = asked
        self.done: list[tuple[str, str, str]] = []
        self.raised = 0

    def perform(self, steps: Sequence[Step], *, serves: Callable[[str], bool] = everywhere) -> None:
        """Perform the steps; handle only messages in lanes that `serves` accepts and drop the others."""
        tick.ASK_AGAIN = 0.0  # give up a dead process's message at once
        for step, *arguments in steps:
            if step == "settle":
                self.settle(serves=serves)
            elif step == "rounds":
                for _ in range(int(arguments[0])):
                    self.round(serves)
            elif step == "advance":
                to = int(arguments[0])
                if self.app.clock.campaign_now() < to:
                    self.app.stores.times.advance(to, self.app.system.system_now())
            elif step == "launch":
                if (record := self.app.commands.named(NAME)).state is CampaignState.DRAFT:
                    self.app.commands.launch(record)
            elif step == "change":
                changes = [UserChange(user_key("shop", str(user)), {"a.plan": "gold"}) for user in arguments]
                self.app.imports("shop").upserts.apply(changes)
            elif step == "stop" and (record := self.app.commands.named(NAME)).state is CampaignState.LIVE:
                self.app.commands.stop(record)

    def settle(self, *, serves: Callable[[str], bool] = everywhere, hurried: bool = True) -> None:
        """Tick and work until nothing is open; if a round moves nothing and `hurried` is set, let time pass."""
        for _ in range(MOST_ROUNDS):
            moved = self.round(serves)
            if moved:
                continue
            open_slices = self.database["slices"].count_documents({"state": "open"})
            if not self._survive(self._feed) and self.app.quiescence.what() is None and not open_slices:
                return
            if hurried:
                let_time_pass(self.database)
        raise AssertionError(f"never settles: {self.app.quiescence.what()}")

    def round(self, serves: Callable[[str], bool] = everywhere) -> int:
        """Run one tick and the work that it enqueues; survive failpoints, as the clock's loop and Dramatiq do."""
        moved = self._survive(self._feed) + self._survive(self.app.clock_tick.run)
        uses: dict[str, Callable[[str], object]] = {
            "process": self.app.slice_decider.run,
            "deliver": self.app.slice_deliverer.run,
            "plan": self.app.run_planner.run,
            "finish": self.app.run_completion.run,
            "look": lambda _: self.app.rechecker.run(),
        }
        while self.asked:
            what, ident, lane = self.asked.popleft()
            if serves(lane):
                self.done.append((what, ident, lane))
                self._survive(lambda use=uses[what], ident=ident: use(ident))
                moved += 1
        return moved

    def _feed(self) -> int:
        """Handle every change so far, as the feed process does, and return the number of changes."""
        handled, target = 0, self.app.stores.feeds.now()
        while True:
            handled += self.app.change_feed.step(timedelta(milliseconds=5))
            if self.app.stores.feeds.position() >= target:
                return handled

    def _survive(self, use: Callable[[], object]) -> int:
        try:
            return int(bool(use()))
        except Failpoint:
            self.raised += 1
            return 1


def let_time_pass(database: Database[dict[str, Any]]) -> None:
    """Expire all leases, back-offs and enqueue marks by MongoDB's clock, as if a minute had passed."""
    slices = database["slices"]
    slices.update_many({"lease": {"$exists": True}}, [{"$set": {"lease.until": _PAST}}])
    slices.update_many({"not_before": {"$exists": True}}, [{"$set": {"not_before": _PAST}}])
    slices.update_many({"rung_at": {"$exists": True}}, {"$unset": {"rung_at": ""}})
    database["leases"].update_many(
        {"_id": {"$regex": "^sender/"}, "until": {"$exists": True}},
        [
            {
                "$set": {
                    "until": _PAST,
                    "seen_ended": {"$dateSubtract": {"startDate": "$$NOW", "unit": "hour", "amount": 1}},
                }
            }
        ],
    )
    database["looks"].update_many({}, {"$unset": {"until": "", "token": ""}})
    retries = {"outgoing.retry_at": {"$exists": True}}
    database["enrolments"].update_many(retries, [{"$set": {"outgoing.retry_at": _PAST}}])
