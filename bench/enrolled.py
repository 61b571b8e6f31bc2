"""P3, P7: the cost of a pass when nobody or few are due, by the number of enrolled users."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import psutil

from bench.measure import counters
from bench.ours import Engine
from bench.population import AS_OF, DAY_MS, WORKSPACE
from engine.domain.enrolment import Enrolment
from engine.domain.keys import enrolment_id, user_key, user_suffix
from engine.domain.lifecycle import CampaignState, EnrolmentState
from engine.stores.mongo.work_documents import enrolment_document

DUE: Final = 100
"""Enrolments that are due at each pass of P7."""

AUDIENCE: Final = "all: [{orders_count: {gte: 3}}]\n"
"""An audience that does not depend on time; otherwise a pass checks again whether anybody has come to match."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a pass: wall-clock seconds, processor seconds (ours and mongod's), commands, documents examined."""

    seconds: float
    processor: float
    commands: int
    examined: int


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The medians of the passes with `enrolled` users enrolled, `due` of whom are due."""

    enrolled: int
    due: int
    cost: Cost


def measure(engine: Engine, sizes: list[int], rounds: int, *, due: int) -> list[Enrolled]:
    """Measure passes of one continuous campaign as its enrolled users grow; `due` of them are due at each pass."""
    engine.clear()
    record = engine.campaign("enrolled", AUDIENCE, kind="continuous", entry={"again_after": "900d"})
    record = engine.app.commands.launch(record)
    engine.app.stores.campaigns.move(record, CampaignState.LIVE, launched_at=AS_OF, pass_as_of=AS_OF)
    engine.app.stores.campaigns.crossed([record.uid], AS_OF, reconciled=True)
    results: list[Enrolled] = []
    there = 0
    for size in sizes:
        _enrol(engine, record.uid, there, size)
        there = size
        costs = [_pass(engine, record.uid, due) for _ in range(rounds + 1)][1:]
        middle = [statistics.median(getattr(cost, what) for cost in costs) for what in Cost.__dataclass_fields__]
        results.append(Enrolled(size, due, Cost(middle[0], middle[1], int(middle[2]), int(middle[3]))))
    return results


def _enrol(engine: Engine, uid: str, first: int, until: int) -> None:
    """Enrol users `first` to `until`, waiting for a message that is not due for years."""
    enrolments = engine.database["enrolments"]
    documents = _documents(uid, first, until)
    while batch := list(islice(documents, 5_000)):
        enrolments.insert_many(batch, ordered=False)
    engine.database.client.admin.command("fsync")  # write the inserts out now, and not during the passes


def _documents(uid: str, first: int, until: int) -> Iterator[dict[str, Any]]:
    for number in range(first, until):
        user = f"u-{number + 1}"
        yield enrolment_document(
            Enrolment(
                id=enrolment_id(WORKSPACE, uid, user_suffix(user), 1),
                workspace=WORKSPACE,
                campaign=uid,
                user=user_key(WORKSPACE, user),
                entry=1,
                state=EnrolmentState.ACTIVE,
                entered_at=AS_OF,
                revision=1,
                version=1,
                due_at=AS_OF + 1_000 * DAY_MS,
            )
        )


def _pass(engine: Engine, uid: str, due: int) -> Cost:
    """Measure one pass: advance time by a minute, run a tick of the clock, and work on the runs that it made."""
    app = engine.app
    app.stores.times.advance(app.clock.campaign_now() + 60_000, app.system.system_now())
    if due:
        query = {"campaign": uid, "due_at": {"$gt": AS_OF + 900 * DAY_MS}}
        ids = [raw["_id"] for raw in engine.database["enrolments"].find(query, {"_id": 1}).limit(due)]
        engine.database["enrolments"].update_many({"_id": {"$in": ids}}, {"$set": {"due_at": app.clock.campaign_now()}})
    server = psutil.Process(int(engine.database.command("serverStatus")["pid"]))
    own, mongod = _cpu(psutil.Process()), _cpu(server)
    commands, examined = counters(engine.database)
    began = time.perf_counter()
    app.clock_tick.run()
    for run in app.stores.runs.undecided():
        engine.work(run.id)
    seconds = time.perf_counter() - began
    after_commands, after_examined = counters(engine.database)
    commands += 2  # our own: the query for undecided runs, and the first reading of the counters
    return Cost(
        seconds,
        _cpu(psutil.Process()) - own + _cpu(server) - mongod,
        after_commands - commands,
        after_examined - examined,
    )


def _cpu(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])
