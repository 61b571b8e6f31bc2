"""A whole engine as threads of the test: the clock and all fleets on a real broker, as `tidegate run` has them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from actors.broker.broker import HardenedBroker
from actors.fleet import run_fleet_in_process, stop_fleets
from actors.middleware import clear_stop
from actors.setup import broker_for
from engine.app.app import App
from engine.pipeline.scheduler.loop import SchedulerLoop
from tests.support.pipeline_world import World


@contextmanager
def engine_threads(
    world: World, first: Callable[[App, HardenedBroker], None] = lambda app, broker: None, **limits: float
) -> Iterator[App]:
    """Run the clock and all fleets of a world; call `first` before any worker starts.

    `limits` are `factor` and `interval` of the time limit (`broker_for`).
    """
    with ExitStack() as ends:
        app = world.open()
        ends.callback(app.close)
        broker = broker_for(app, **limits)
        ends.callback(broker.close)
        ends.callback(clear_stop)
        first(app, broker)
        workers = [run_fleet_in_process(broker, fleet) for fleet in app.policies.fleets.values()]
        ends.callback(stop_fleets, broker, workers)
        stores, every = app.stores, app.settings.engine.tick
        clockwork = SchedulerLoop(
            app.clock_tick,
            stores.leases,
            stores.wakeup,
            app.clock,
            owner="test",
            every=every,
            chores=(),
            failures=app.failures,
            outages=stores.OUTAGES,
        )
        stop = threading.Event()
        clock = threading.Thread(target=clockwork.run, args=(stop.is_set, stop.wait))
        clock.start()
        ends.callback(clock.join, 30)
        ends.callback(stop.set)
        yield app
