"""Redis may lose everything at any time: MongoDB restores it, and no user gets a mail twice."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from actors.broker.broker import HardenedBroker
from engine.app.app import App
from tests.chaos.play import NAME
from tests.support.engine_threads import engine_threads
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


def lose_the_first_messages(app: App, broker: HardenedBroker) -> None:
    """Make one tick, and let Redis lose what it enqueued."""
    app.clock_tick.run()
    broker.client.flushall()


def check_everybody_got_both(world: World) -> None:
    """Check that each user has one enrolment with both messages, and one file for each mail."""
    world.check()
    assert world.sent() == sorted((user, message) for user in USERS for message in ("one", "two"))
    assert all(len(world.enrolments(NAME, user)) == 1 for user in USERS)


def test_a_queue_that_is_emptied_again_and_again_is_rebuilt_from_mongodb(
    staged: World, valkey: Any, quick_reconnects: None
) -> None:
    with engine_threads(staged, lose_the_first_messages):
        for many in (1, 20, 60, 90):
            rig.wait_for(lambda many=many: len(staged.sent()) >= many, A_MINUTE, f"{many} mails")
            valkey.client.flushall()
        rig.wait_for(lambda: staged.state(NAME) == "finished", A_MINUTE, "the end of the campaign")
    check_everybody_got_both(staged)


def test_a_broker_that_dies_and_comes_back_empty_is_refilled_within_a_minute(
    staged: World, valkey: Any, quick_reconnects: None
) -> None:
    with engine_threads(staged, lose_the_first_messages):
        rig.wait_for(lambda: len(staged.sent()) >= 10, A_MINUTE, "ten mails")
        valkey.kill()
        shutil.rmtree(valkey.folder)
        rig.wait_for(lambda: staged.app.quiescence.what() is not None, what="work that is left")
        valkey.start()
        back = time.monotonic()
        rig.wait_for(lambda: staged.state(NAME) == "finished", A_MINUTE, "the end of the campaign")
        assert time.monotonic() - back < A_MINUTE
    check_everybody_got_both(staged)
