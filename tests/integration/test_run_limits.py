"""The time limit of a lane, in one process too (DRAMATIQ.md, row 16)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import yaml

from tests.integration.installation import Installation
from tests.integration.pipeline_shop import POLICIES
from tests.integration.pipeline_world import World


@pytest.fixture
def silent() -> Iterator[int]:
    """A server that takes every connection and never says a word; its port."""
    held: list[socket.socket] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def take() -> None:
            try:
                while True:
                    held.append(server.accept()[0])
            except OSError:
                return  # the test is over

        threading.Thread(target=take, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    for one in held:
        one.close()


@pytest.mark.timeout(200)
def test_an_actor_that_outstays_the_time_limit_of_its_lane_is_interrupted(
    make_world: Callable[..., World], services: Any, silent: int
) -> None:
    world = make_world()
    lanes: dict[str, Any] = yaml.safe_load(yaml.safe_dump(POLICIES))
    lanes["lanes"]["deliver"]["time_limit"] = "5s"
    (world.folder / "policies" / "lanes.yaml").write_text(yaml.safe_dump(lanes))
    email = {"TRANSPORT": "smtp", "HOST": "127.0.0.1", "PORT": str(silent), "STARTTLS": "off", "TIMEOUT": "15s"}
    installation = Installation(world, services, {f"TIDEGATE_EMAIL__{key}": value for key, value in email.items()})
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
        installation.until(lambda: len(world.stays("other")) == 2, "other work that goes on", process)
        assert installation.end(process) == 0
    finally:
        installation.close()
