"""Fill every collection with documents for the calls of `tests.support.store_calls`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pymongo.database import Database

from engine.clock import moment
from engine.domain.enrolment import Outgoing, Settled
from engine.domain.keys import user_key
from engine.domain.lifecycle import CampaignState, DeliveryState, ExitReason
from engine.domain.work import RunKind
from engine.stores.mongo.enrolments import Enrolments
from engine.stores.mongo.index_requests import IndexRequest, IndexRequests
from engine.stores.mongo.runs import Runs
from engine.stores.mongo.slices import Slices
from tests.support.decision_cases import DAY, NOW, ORDER, enrolment
from tests.support.store_calls import KEYS, NAMES, PIECE, RUN


def fill(database: Database[dict[str, Any]]) -> None:
    """Insert documents into every collection, mostly 500 to 3000, so that the planner has a real choice of indexes."""
    rnd = random.Random(1)
    many: list[Sequence[Any]] = [
        [_enrolment(rnd, name, uid) for name in NAMES[:1_000] for uid in ("c1", "c2", "c3")],
        [replace(RUN, id=f"r{n}", campaign=f"c{n % 9}", kind=RunKind.DUE, as_of=n) for n in range(2_000)],
        [replace(PIECE, id=f"p{n}", run=f"r{n // 4}", campaign=f"c{n % 9}") for n in range(2_000)],
    ]
    Enrolments(database).enter(many[0])
    runs, slices = Runs(database), Slices(database)
    for run in (RUN, *many[1][:50]):
        runs.add(run)
    ended = [
        {"_id": f"e{n}", "campaign": f"c{n % 9}", "kind": "due", "as_of": n, "state": "decided"} for n in range(2_000)
    ]
    database.runs.insert_many(ended)
    slices.add([PIECE, *many[2]])
    database.slices.update_many({"_id": {"$gte": "p2"}}, [{"$set": {"state": "done", "ended_at": "$$NOW"}}])
    states = [state.value for state in CampaignState]
    rows = [{"_id": f"c{n}", "workspace": "shop", "name": f"campaign-{n}", "kind": "continuous"} for n in range(500)]
    database.campaigns.insert_many([row | {"state": states[n % 7], "revision": 1} for n, row in enumerate(rows)])
    database.campaigns.update_one({"_id": "c1"}, {"$set": {"state": "live"}})
    revisions = [{"_id": f"c{n}/000001", "campaign": f"c{n}", "revision": 1, "spec": {}} for n in range(500)]
    database.campaign_revisions.insert_many(revisions)
    keys = {name: user_key("shop", name) for name in NAMES}
    people = [{"_id": key, "w": "shop", "u": name, "rev": 1, "a": {"plan": "gold"}} for name, key in keys.items()]
    database.users.insert_many(people)
    database.stats.insert_many([{"_id": f"h:1:{n}/0000", "until": moment(n), "queries": []} for n in range(2_000)])
    database.list_members.insert_many([{"_id": key.replace("shop/", "shop/vip/")} for key in keys.values()])
    happened = [
        {"_id": f"{key}/{n}", "user": key, "w": "shop", "n": name, "t": NOW - n * DAY, "p": {}}
        for key in keys.values()
        for n, name in enumerate((ORDER, "Coupon Redeemed"))
    ]
    database.events.insert_many(happened)
    for name in ("leases", "policies", "settings", "imports", "cache_layouts"):
        database[name].insert_many([{"_id": f"x{n}", "first_used_at": n} for n in range(500)])
    requests = [{"_id": key, "names": ["plan"], "mark": "m"} for key in keys.values()]
    database.looks.insert_many(
        [{**request, "until": moment(n)} if n % 9 == 0 else request for n, request in enumerate(requests)]
    )
    database.dirty_ranges.insert_many(
        [{"_id": f"w/{n}", "workspace": "w", "first": "0", "last": "1", "names": [], "mark": "m"} for n in range(500)]
    )
    database.feeds.insert_many([{"_id": f"x{n}"} for n in range(500)])
    database.campaigns.update_many({}, {"$currentDate": {"touched": True}})
    IndexRequests(database).add([IndexRequest((key,)) for key in KEYS])
    database.index_requests.insert_one({"_id": "i1", "keys": []})


def _enrolment(rnd: random.Random, name: str, uid: str) -> Any:
    drawn = enrolment(name=name, ended=(ExitReason.COMPLETED, NOW) if rnd.random() < 0.5 else None)
    out = None
    if drawn.active and rnd.random() < 0.2:
        out = Outgoing("one", rnd.choice([DeliveryState.QUEUED, DeliveryState.ATTEMPTING]), NOW, NOW)
    settled = (Settled("two", rnd.choice([DeliveryState.SENT, DeliveryState.FAILED]), NOW),)
    due = NOW + rnd.randrange(-DAY, DAY) if rnd.random() < 0.1 else None
    return replace(drawn, id=drawn.id.replace("c1", uid, 1), campaign=uid, outgoing=out, settled=settled, due_at=due)
