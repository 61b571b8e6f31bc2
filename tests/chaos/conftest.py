"""Fixtures for crash tests: an engine on a database of its own, and processes that die on demand."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from engine import failpoints
from engine.pipeline.scheduler import tick
from engine.settings import Settings
from engine.stores.migrations import migrate_mongo
from tests.chaos.play import Performer, Step
from tests.support.pipeline_world import World

ROOT = Path(__file__).resolve().parents[2]


class Drive:
    """The process that forks others (`tests/chaos/drive.py`)."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.drive"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=None,
        )

    def perform(
        self, settings: Settings, steps: Sequence[Step], points: str = "", serves: Sequence[str] | None = None
    ) -> tuple[int, str]:
        """Perform a play in a forked process with failpoints armed; return its pid and how it ended."""
        order = {"settings": plain(settings), "failpoints": points, "steps": steps, "serves": serves}
        return self._ask(order)

    def wait(self, pid: int) -> str:
        """Wait for a process that had stopped and return how it ended."""
        return self._ask({"wait": pid})[1]

    def _ask(self, order: dict[str, Any]) -> tuple[int, str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["pid"], answer["end"]

    def close(self) -> None:
        """End the driver process."""
        self._process.communicate(timeout=30)


def plain(settings: Settings) -> dict[str, Any]:
    """Return the settings as JSON, with the addresses of the services readable."""
    services = {name: url and url.get_secret_value() for name, url in settings.services if name.endswith("_url")}
    return {
        "services": services | {"mongo_database": settings.services.mongo_database},
        "paths": settings.paths.model_dump(mode="json"),
        "engine": settings.engine.model_dump(mode="json"),
        "email": settings.email.model_dump(mode="json", exclude={"password"}),
    }


@pytest.fixture(scope="session")
def drive() -> Iterator[Drive]:
    """Yield the driver that performs plays in processes that may die."""
    made = Drive()
    yield made
    made.close()


@pytest.fixture(scope="session")
def crash_database(mongo_client: MongoClient[dict[str, Any]]) -> Iterator[Database[dict[str, Any]]]:
    """Yield one database for all crash tests: creating its indexes takes a second, emptying it hundredths of one."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    yield mongo_client[name]
    mongo_client.drop_database(name)


@pytest.fixture
def make_stage(
    crash_database: Database[dict[str, Any]], services: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., World]]:
    """Yield a function that makes the test's engine on an empty database.

    Its keys are those of `World`; None removes a default. `broker` replaces the addresses of the shared services.
    """
    monkeypatch.setattr(tick, "ASK_AGAIN", tick.ASK_AGAIN)  # restore the value at the end: performers change it
    migrate_mongo(crash_database)
    for name in crash_database.list_collection_names():
        crash_database[name].delete_many({})
    made: list[World] = []

    def make(broker: Any = None, **more: Any) -> World:
        small = {"batch": {"candidates": [4]}, "slice_users": 6, "window": 2, "errors": {"budget": "100%"}}
        keys = {name: value for name, value in {**small, **more}.items() if value is not None}
        world = World(crash_database, broker or services, tmp_path, **keys)
        made.append(world)
        return world

    yield make
    failpoints.arm("")
    for world in made:
        world.close()


@pytest.fixture
def stage(make_stage: Callable[..., World]) -> World:
    """Return an engine on an empty database: batches of 4 users, slices of 6, windows of 2 mails."""
    return make_stage()


@pytest.fixture
def recover(crash_database: Database[dict[str, Any]]) -> Callable[..., Performer]:
    """Return a function that performs the play again in this process, as a restarted engine does, without crashes."""

    def begin_anew(world: World, steps: Sequence[Step], points: str = "") -> Performer:
        failpoints.arm(points)
        performer = Performer(world.open(), crash_database, world.asked)
        try:
            performer.perform(steps)
        finally:
            performer.app.close()
        return performer

    return begin_anew
