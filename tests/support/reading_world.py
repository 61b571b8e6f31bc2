"""Helpers for a `World` with the user cache and Elasticsearch: run the feed, launch by a chosen access path."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from engine.domain.work import AccessPath
from tests.support.pipeline_world import World


@contextmanager
def following(world: World) -> Iterator[Callable[[], None]]:
    """Run the feed in a thread, as its process does; yield a function that makes it begin a new generation."""
    stop, gap = threading.Event(), threading.Event()

    def follow() -> None:
        while not stop.is_set():
            if gap.is_set():
                world.app.change_feed.generation = world.app.stores.feeds.next_generation()
                gap.clear()
            world.app.change_feed.step(timedelta(milliseconds=20))

    def begin_anew() -> None:
        gap.set()
        while gap.is_set():
            stop.wait(0.002)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield begin_anew
    finally:
        stop.set()
        thread.join()


def entered(
    world: World, name: str, rule: dict[str, Any], path: AccessPath, planned: Callable[[], None] = lambda: None
) -> tuple[set[str], str]:
    """Launch a one-off campaign by `path`; return the users that entered and the access path that the run took.

    The function calls `planned` after it plans the run and before it processes the slices.
    """
    record = world.apply({"campaign": name, "kind": "one_off", "audience": rule}).record
    record = world.app.commands.launch(record, path=path)
    world.app.clock_tick.launch(record, world.now)
    run = world.app.stores.runs.undecided([record.uid])[0]
    world.app.run_planner.run(run.id)
    planned()
    for slice_ in world.app.stores.slices.of_run(run.id):
        world.app.slice_decider.run(slice_.id)
    assert world.app.run_completion.run(run.id) or not world.app.stores.slices.of_run(run.id)
    raw = world.database["runs"].find_one({"_id": run.id}) or {}
    documents = world.database["enrolments"].find({"campaign": record.uid}, {"user": 1})
    return {document["user"] for document in documents}, raw["plan"].get("path", "none")
