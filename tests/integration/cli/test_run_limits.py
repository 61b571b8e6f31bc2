"""The time limit of a lane holds in one process too (docs/broker.md, row 16)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.support.installation import Installation
from tests.support.pipeline_shop import POLICIES
from tests.support.pipeline_world import World


@pytest.mark.timeout(200)
def test_an_actor_that_exceeds_the_time_limit_of_its_lane_is_interrupted(
    make_world: Callable[..., World], services: Any
) -> None:
    world = make_world()
    lanes: dict[str, Any] = yaml.safe_load(yaml.safe_dump(POLICIES))
    lanes["lanes"]["fast"]["time_limit"] = "5s"
    (world.folder / "policies" / "lanes.yaml").write_text(yaml.safe_dump(lanes))
    installation = Installation(world, services, {"TIDEGATE_FAILPOINTS": "slice.decided=hang@1"})
    try:
        world.user("u")
        world.apply({"campaign": "hello", "kind": "one_off"})
        world.launch("hello")
        process = installation.running()

        def interrupted() -> bool:
            return any("over its time limit" in str(line) for line in installation.lines("library.logged"))

        installation.until(interrupted, "the interrupt", process)
        assert process.poll() is None
        world.user("v")
        world.apply({"campaign": "other", "messages": [{"name": "later", "wait": "1d"}]})
        world.launch("other")
        installation.until(lambda: len(world.enrolments("other")) == 2, "other work that goes on", process)
        assert installation.end(process) == 0
    finally:
        installation.close()
