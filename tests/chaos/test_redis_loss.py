"""Redis may lose everything at any time: MongoDB restores it, and no user gets a mail twice."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from actors.fleet import run_fleet_in_process, stop_fleets
from actors.middleware import clear_stop
from actors.setup import broker_for
from engine.app.app import App
from engine.pipeline.scheduler.loop import SchedulerLoop
from tests.chaos.play import NAME
from tests.support.pipeline_world import World

rig = SimpleNamespace(**run_path(str(Path(__file__).parents[1] / "stock" / "rig.py")))
valkey, quick_reconnects = rig.valkey, rig.quick_reconnects

USERS: Final = tuple(f"u{number}" for number in range(60))
A_MINUTE: Final = 60.0


@pytest.fixture
def staged(make_stage: Callable[..., World], services: Any, valkey: Any) -> World:
    """A launched campaign, sixty users in ten slices, on a broker that the test may kill.

    Unclaimed slices are enqueued again after 1 s.
    """
    addresses = SimpleNamespace(mongo_url=services.mongo_url, broker_url=valkey.url)
    world = make_stage(addresses, engine={"ring_again": "1s", "tick": "100ms", "lease": "5s"})
    world.users(USERS)
    world.apply({"campaign": NAME, "kind": "one_off", "messages": [{"name": "one"}, {"name": "two"}]})
    world.launch(NAME)
    return world


@contextmanager
def engine_of(world: World) -> Iterator[App]:
    """Run the clock and all fleets as threads, as `tidegate run` does."""
    with ExitStack() as ends:
        app = world.open()
        ends.callback(app.close)
        broker = broker_for(app)
        ends.callback(broker.close)
        ends.callback(clear_stop)
        app.clock_tick.run()  # the first flush loses what this enqueues
        broker.client.flushall()
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


def check_everybody_got_both(world: World) -> None:
    """Check that each user has one enrolment with both messages, and one file for each mail."""
    world.check()
    assert world.sent() == sorted((user, message) for user in USERS for message in ("one", "two"))
    assert all(len(world.enrolments(NAME, user)) == 1 for user in USERS)


def test_a_queue_that_is_emptied_again_and_again_is_rebuilt_from_mongodb(
    staged: World, valkey: Any, quick_reconnects: None
) -> None:
    with engine_of(staged):
        for many in (1, 20, 60, 90):
            rig.wait_for(lambda many=many: len(staged.sent()) >= many, A_MINUTE, f"{many} mails")
            valkey.client.flushall()
        rig.wait_for(lambda: staged.state(NAME) == "finished", A_MINUTE, "the end of the campaign")
    check_everybody_got_both(staged)


def test_a_broker_that_dies_and_comes_back_empty_is_refilled_within_a_minute(
    staged: World, valkey: Any, quick_reconnects: None
) -> None:
    with engine_of(staged):
        rig.wait_for(lambda: len(staged.sent()) >= 10, A_MINUTE, "ten mails")
        valkey.kill()
        shutil.rmtree(valkey.folder)
        rig.wait_for(lambda: staged.app.quiescence.what() is not None, what="work that is left")
        valkey.start()
        back = time.monotonic()
        rig.wait_for(lambda: staged.state(NAME) == "finished", A_MINUTE, "the end of the campaign")
        assert time.monotonic() - back < A_MINUTE
    check_everybody_got_both(staged)
