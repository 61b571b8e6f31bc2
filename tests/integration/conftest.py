"""What the tests of the pipeline share: a whole engine without a broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database

from tests.integration.pipeline_world import World


@pytest.fixture
def make_world(database: Database[dict[str, Any]], services: Any, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes worlds with their own settings (`World` tells which); further ones on databases beside the first."""
    made: list[World] = []

    def make(**more: Any) -> World:
        own = database if not made else database.client[f"{database.name}_{len(made)}"]
        world = World(own, services, tmp_path / f"world{len(made)}", **more)
        made.append(world)
        return world

    yield make
    for number, world in enumerate(made):
        world.close()
        if number:
            database.client.drop_database(world.database.name)


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A whole engine on an empty database; see `tests/integration/pipeline_world.py`."""
    return make_world()
