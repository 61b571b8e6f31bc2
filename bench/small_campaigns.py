"""P16: the cost of thousands of small live campaigns while nothing is due."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import psutil

from bench.measure import counters
from bench.ours import Engine, small_workspace
from bench.population import AS_OF
from engine.domain.lifecycle import CampaignState
from engine.pipeline.campaigns.live_index import QUIET
from engine.pipeline.feed.loop import WAIT
from engine.pipeline.scheduler.loop import IDLE


@dataclass(frozen=True, slots=True)
class Idle:
    """Cost of `campaigns` campaigns over `seconds` seconds: shares of a core, and MongoDB commands a second."""

    campaigns: int
    seconds: float
    ours: float
    mongod: float
    operations: float


def idle(engine: Engine, campaigns: int, seconds: int) -> tuple[Idle, Idle]:
    """Measure clock and feed of an installation in which nothing is due, without campaigns and with them.

    mongod's own processor time is counted too. Each campaign passes every 10 minutes of campaign time, which follows
    system time here; passes are spread evenly over the ten minutes, and campaigns over workspaces of their own.
    """
    engine.clear()
    engine.database["settings"].delete_one({"_id": "campaign_time"})
    bare = _measured(engine, 0, seconds)
    now = engine.app.clock.campaign_now()
    for number in range(campaigns):
        rule = f"all: [{{orders_count: {{gte: {1_000_000 + number}}}}}]\n"
        workspace = small_workspace(number)
        record = engine.campaign(f"small-{number}", rule, kind="continuous", profile="small", workspace=workspace)
        record = engine.app.commands.launch(record)
        at = now - 600_000 * number // campaigns
        engine.app.stores.campaigns.move(record, CampaignState.LIVE, launched_at=at, pass_as_of=at, reconciled_at=now)
    full = _measured(engine, campaigns, seconds)
    engine.clear()
    engine.app.stores.times.advance(AS_OF, engine.app.system.system_now())  # restore the time of the other tables
    return bare, full


def _measured(engine: Engine, campaigns: int, seconds: int) -> Idle:
    """Measure ticks and feed without wake-ups, after the ticks that follow a launch."""
    engine.caught_up()
    _tick(engine, QUIET)
    server, own = psutil.Process(int(engine.database.command("serverStatus")["pid"])), psutil.Process()
    stop = threading.Event()

    def follow() -> None:
        while not stop.is_set():
            engine.app.change_feed.step(WAIT)

    feed = threading.Thread(target=follow)
    feed.start()
    before = _cpu(own), _cpu(server), counters(engine.database)[0]
    took = _tick(engine, seconds)
    after = _cpu(own), _cpu(server), counters(engine.database)[0]
    stop.set()
    feed.join()
    return Idle(campaigns, took, *((new - old) / took for new, old in zip(after, before, strict=True)))


def _tick(engine: Engine, seconds: float) -> float:
    """Run a tick each second for `seconds`; return the actual duration."""
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        tick = time.perf_counter()
        engine.app.clock_tick.run()
        time.sleep(max(0.0, IDLE.total_seconds() - (time.perf_counter() - tick)))
    return time.perf_counter() - began


def _cpu(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])
