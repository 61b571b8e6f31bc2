"""What tests of crashes share: an engine on a database of its own, and processes that die on demand."""

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
        """Perform a play in a process of its own with failpoints armed; gives its pid and how it ended."""
        order = {"settings": plain(settings), "failpoints": points, "steps": steps, "serves": serves}
        return self._ask(order)

    def wait(self, pid: int) -> str:
        """Wait for a process that had stopped; gives how it ended."""
        return self._ask({"wait": pid})[1]

    def _ask(self, order: dict[str, Any]) -> tuple[int, str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["pid"], answer["end"]

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=30)


def plain(settings: Settings) -> dict[str, Any]:
    """Settings as JSON, the addresses of the services readable."""
    services = {name: url and url.get_secret_value() for name, url in settings.services if name.endswith("_url")}
    return {
        "services": services | {"mongo_database": settings.services.mongo_database},
        "paths": settings.paths.model_dump(mode="json"),
        "engine": settings.engine.model_dump(mode="json"),
        "email": settings.email.model_dump(mode="json", exclude={"password"}),
    }


@pytest.fixture(scope="session")
def drive() -> Iterator[Drive]:
    """Performs plays in processes that may die."""
    made = Drive()
    yield made
    made.close()


@pytest.fixture(scope="session")
def crash_database(mongo_client: MongoClient[dict[str, Any]]) -> Iterator[Database[dict[str, Any]]]:
    """One database with its indexes for all crashes: making them takes a second, emptying it hundredths."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    yield mongo_client[name]
    mongo_client.drop_database(name)


@pytest.fixture
def make_stage(
    crash_database: Database[dict[str, Any]], services: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., World]]:
    """Makes the one engine of a test, on an empty database; keys are those of `World`, None takes one away.

    `broker` has the addresses in place of the shared services'.
    """
    monkeypatch.setattr(tick, "ASK_AGAIN", tick.ASK_AGAIN)  # performers change it
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
    """An engine on an empty database: batches of 4 users, slices of 6, windows of 2 mails."""
    return make_stage()


@pytest.fixture
def recover(crash_database: Database[dict[str, Any]]) -> Callable[..., Performer]:
    """Begins the play anew, in this process and without crashes: what a restarted engine does."""

    def begin_anew(world: World, steps: Sequence[Step], points: str = "") -> Performer:
        failpoints.arm(points)
        performer = Performer(world.open(), crash_database, world.asked)
        try:
            performer.perform(steps)
        finally:
            performer.app.close()
        return performer

    return begin_anew
