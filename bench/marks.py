"""The cost of a mark: `attempting` written once per delivery, as the engine does, and once per window, an alternative.

The alternative writes the ids of a window into one document before sending the window, and settles deliveries that are
still `queued`. This bench measures it on bare collections, to know its savings; the engine does not work so
(`docs/decisions/0007-attempting-is-marked-per-delivery.md`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psutil
from pymongo import InsertOne
from pymongo.database import Database

from bench.population import AS_OF, WORKSPACE
from engine.domain.delivery import Delivery
from engine.domain.enrolment import Enrolment, Outgoing, Settled
from engine.domain.keys import enrolment_id, user_key, user_suffix
from engine.domain.lifecycle import DeliveryState, EnrolmentState
from engine.domain.settling import Settling
from engine.stores.migrations import migrate_mongo
from engine.stores.mongo.client import MAJORITY
from engine.stores.mongo.deliveries import Deliveries
from engine.stores.mongo.work_documents import enrolment_document, settled_document

CAMPAIGN: Final = "0123456789ab"
SENT: Final = Settled("hello", DeliveryState.SENT, AS_OF + 1, None, 1)
Documents = Database[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Marks:
    """Processor microseconds of mongod per mail, of marking and of settling, in both ways."""

    mark: float
    settle: float
    mark_window: float
    settle_window: float


def measure(database: Documents, count: int, window: int) -> Marks:
    """Measure one round over `count` fresh enrolments; the collections are filled anew before each way."""
    enrolled = sorted((_enrolment(number) for number in range(count)), key=lambda enrolment: enrolment.id)
    server = psutil.Process(int(database.command("serverStatus")["pid"]))
    deliveries = Deliveries(database)
    _fill(database, enrolled)
    waiting = [Delivery(enrolment.id, enrolment.user, 1, "hello", AS_OF) for enrolment in enrolled]
    mark = _each(server, waiting, window, lambda some: deliveries.settle_and_mark([], some, "token"))
    settle = _each(
        server,
        waiting,
        window,
        lambda some: deliveries.settle([Settling([enrolment.id for enrolment in some], "token", SENT)]),
    )
    _fill(database, enrolled)
    mark_window = _each(server, waiting, window, lambda some: _mark_window(database, some))
    settle_window = _each(server, waiting, window, lambda some: _settle_queued(database, some))
    return Marks(mark, settle, mark_window, settle_window)


def _enrolment(number: int) -> Enrolment:
    user = f"u-{number}"
    return Enrolment(
        id=enrolment_id(WORKSPACE, CAMPAIGN, user_suffix(user), 1),
        workspace=WORKSPACE,
        campaign=CAMPAIGN,
        user=user_key(WORKSPACE, user),
        entry=1,
        state=EnrolmentState.ACTIVE,
        entered_at=AS_OF,
        revision=1,
        version=1,
        outgoing=Outgoing("hello", DeliveryState.QUEUED, AS_OF, AS_OF, slice=f"{WORKSPACE}/{CAMPAIGN}/launch/1/0000"),
    )


def _fill(database: Documents, enrolled: Sequence[Enrolment]) -> None:
    database["enrolments"].drop()  # documents that are only deleted slow reads down for a while
    migrate_mongo(database)
    database["enrolments"].bulk_write(
        [InsertOne(enrolment_document(enrolment)) for enrolment in enrolled], ordered=False
    )


def _each(
    server: psutil.Process, waiting: Sequence[Delivery], window: int, step: Callable[[Sequence[Delivery]], object]
) -> float:
    """Return mongod's processor microseconds per mail for one step over all windows."""
    before = sum(server.cpu_times()[:2])
    for first in range(0, len(waiting), window):
        step(waiting[first : first + window])
    return (sum(server.cpu_times()[:2]) - before) / len(waiting) * 1e6


def _mark_window(database: Documents, some: Sequence[Delivery]) -> None:
    slices = database.get_collection("slices", write_concern=MAJORITY)
    window = {"token": "token", "ids": [enrolment.id for enrolment in some]}
    slices.update_one({"_id": "bench"}, {"$set": {"window": window}}, upsert=True)


def _settle_queued(database: Documents, some: Sequence[Delivery]) -> None:
    enrolments = database.get_collection("enrolments", write_concern=MAJORITY)
    at = SENT.at
    enrolments.update_many(
        {"_id": {"$in": [enrolment.id for enrolment in some]}, "outgoing.message": "hello", "outgoing.state": "queued"},
        {
            "$push": {"settled": settled_document(SENT)},
            "$set": {"settled_at": at, "idle_since": at, "due_at": at},
            "$unset": {"outgoing": ""},
            "$inc": {"version": 1},
        },
    )
