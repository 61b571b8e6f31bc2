"""P16: what thousands of small live campaigns cost while nothing is due."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import timedelta

import psutil

from bench.measure import counters
from bench.ours import Engine
from bench.population import AS_OF
from engine.domain.lifecycle import CampaignState
from engine.pipeline.clockwork import IDLE


@dataclass(frozen=True, slots=True)
class Idle:
    """So many campaigns for so many seconds: the share of a core, and the MongoDB commands a second."""

    campaigns: int
    seconds: float
    core: float
    operations: float


def idle(engine: Engine, campaigns: int, seconds: int) -> Idle:
    """Clock and feed of an installation in which nothing is due; mongod's own processor time is counted too.

    Each campaign passes every 10 minutes of campaign time, which moves with the system's here; they are spread evenly.
    """
    engine.clear()
    engine.database["settings"].delete_one({"_id": "campaign_time"})
    now = engine.app.clock.campaign_now()
    for number in range(campaigns):
        rule = f"all: [{{orders_count: {{gte: {1_000_000 + number}}}}}]\n"
        record = engine.campaign(f"small-{number}", rule, kind="continuous", profile="small")
        record = engine.app.steering.launch(record)
        at = now - 600_000 * number // campaigns
        engine.app.stores.campaigns.move(record, CampaignState.LIVE, launched_at=at, pass_as_of=at, reconciled_at=now)
    engine.app.ticking.run()
    server = psutil.Process(int(engine.database.command("serverStatus")["pid"]))
    own = psutil.Process()
    stop = threading.Event()

    def follow() -> None:
        while not stop.is_set():
            engine.app.feeding.step(timedelta(milliseconds=250))

    feed = threading.Thread(target=follow)
    feed.start()
    used, (commands, _) = _cpu(own) + _cpu(server), counters(engine.database)
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        tick = time.perf_counter()
        engine.app.ticking.run()
        time.sleep(max(0.0, IDLE.total_seconds() - (time.perf_counter() - tick)))
    took = time.perf_counter() - began
    used, commands = _cpu(own) + _cpu(server) - used, counters(engine.database)[0] - commands
    stop.set()
    feed.join()
    engine.clear()
    engine.app.stores.times.advance(AS_OF, engine.app.system.system_now())  # the other tables' time
    return Idle(campaigns, took, used / took, commands / took)


def _cpu(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])
