"""A second reader of a campaign waits while the first reads the workspace files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from tests.support.pipeline_shop import SHOP
from tests.support.pipeline_world import World


def test_a_second_thread_waits_for_the_files_that_the_first_is_reading(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = world.open()
    assert other.campaign_cache.catalogue("shop") is not None
    world.workspace(attributes={**dict(SHOP["attributes"]), "tier": "string"})  # type: ignore[call-overload]  # a table
    world.reload()
    uid = world.apply({"campaign": "new", "audience": {"tier": "gold"}}).record.uid
    reading, both = Event(), Event()
    read = other.workspace_watcher.look

    def look() -> bool:
        if not reading.is_set():
            reading.set()
            both.wait(30)
        return read()

    monkeypatch.setattr(other.workspace_watcher, "look", look)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(other.campaign_cache.open, uid)
        assert reading.wait(30)
        second = pool.submit(other.campaign_cache.open, uid)
        done = second.exception(timeout=None) if second.done() else None
        both.set()
        assert first.result().record.uid == second.result().record.uid == uid
        assert done is None
    other.close()
