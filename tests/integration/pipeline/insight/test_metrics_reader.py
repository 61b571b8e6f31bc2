"""The metrics of a real installation: the same from every process, at a cost that does not grow."""

from __future__ import annotations

from actors.broker.queue_views import watch_queues
from engine.app.app import App
from engine.query_metrics import MEASUREMENTS
from engine.telemetry.exposition import Samples
from tests.support.pipeline_world import World

OF_THE_MOMENT = {
    "tidegate_clock_skew_seconds",
    "tidegate_store_ping_seconds",
    "tidegate_scrape_seconds",
    "tidegate_view_age_seconds",
    "tidegate_tally_age_seconds",
    "tidegate_feed_lag_seconds",
    "tidegate_query_seconds",
    "tidegate_query_documents",
}
"""Metrics that two readings one after another may tell differently."""


def read(app: App) -> Samples:
    watch_queues(app)
    app.__dict__.pop("metrics", None)
    return app.metrics.read()


def sent(world: World, campaigns: int, users: int, name: str = "c") -> None:
    world.users([f"u{n}" for n in range(users)], plan="free")
    for n in range(campaigns):
        world.apply({"campaign": f"{name}{n}", "kind": "one_off"})
        world.launch(f"{name}{n}")
    world.settle()
    world.app.live_campaigns.refresh()
    for n in range(campaigns):
        assert world.app.tally_keeper.count(world.record(f"{name}{n}"))
    world.app.counter_folding.fold_slices()


def test_two_processes_show_the_same(world: World) -> None:
    sent(world, 3, 5)
    other = world.open()
    try:
        first, second = read(world.app), read(other)
    finally:
        other.close()
    assert first.keys() == second.keys()
    assert {name: first[name] for name in first.keys() - OF_THE_MOMENT} == {
        name: second[name] for name in second.keys() - OF_THE_MOMENT
    }
    assert first["tidegate_deliveries"] == {("shop", "email", "sent"): 15}


def test_a_reading_makes_as_many_queries_with_many_campaigns_as_with_one(world: World) -> None:
    def calls() -> int:
        read(world.app)  # connections, compiled policies
        before = MEASUREMENTS.calls
        read(world.app)
        return MEASUREMENTS.calls - before

    sent(world, 1, 2)
    few = calls()
    sent(world, 25, 40, "more")
    assert calls() <= few + 1
    assert few < 40
