"""`tidegate stats`: the measurements of running processes, and the evaluations that a campaign's messages cost."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from engine.domain.keys import HIGHEST
from engine.query_metrics import MEASUREMENTS, measured
from tests.integration.cli.test_run_procfile import PROCFILE
from tests.support.installation import Installation, Told
from tests.support.pipeline_world import World

Tidegate = Callable[..., Told]


@pytest.mark.timeout(200)
def test_every_process_records_its_measurements_even_of_its_last_seconds(
    installation: Installation, tidegate: Tidegate
) -> None:
    (installation.folder / "Procfile").write_text(PROCFILE)
    world = installation.world
    world.users([f"u{i}" for i in range(50)], plan="free")
    world.users([f"u{i}" for i in range(50, 60)], plan="pro")
    world.apply({"campaign": "hello", "kind": "one_off", "audience": {"plan": "free"}})
    world.feed()
    world.settle()
    world.launch("hello")
    installation.env["TIDEGATE_SERVICES__ELASTIC_URL"] = "http://127.0.0.1:9"  # no server answers there
    process = installation.start("up")
    installation.until(lambda: world.state("hello") == "finished", "the end of the campaign", process)
    assert installation.end(process, signal.SIGINT) == 130
    assert {"clock", "all"} <= set(world.database.stats.distinct("process"))
    answer = tidegate("stats", "--json").document
    by_query = {row["query"]: row for row in answer["queries"]}
    read = by_query["users.read_range"]
    assert (read["documents"], read["failed"]) == (60, 0)
    assert read["calls"] >= 1
    assert read["worst"]["campaign"] == "hello"
    assert 0 < read["median_seconds"] <= read["p95_seconds"] <= read["p99_seconds"]
    assert read["worst"]["seconds"] >= read["p99_seconds"]
    assert {"enrolments.enter_alike", "deliveries.settle_and_mark", "slices.waiting", "runs.undecided"} <= set(by_query)
    (campaign,) = answer["campaigns"]
    assert (campaign["campaign"], campaign["looked_at"], campaign["messages"]) == ("hello", 60, 50)
    assert campaign["looked_at_per_message"] == pytest.approx(1.2)
    assert (campaign["inactivity"], campaign["inactivity_advised"]) == ("45d", None)


def test_stats_prints_three_tables(
    installation: Installation, tidegate: Tidegate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    world = installation.world
    world.users([f"u{i}" for i in range(6)])
    world.apply({"campaign": "hello", "kind": "one_off"})
    world.launch("hello")
    world.app.statistics_recorder.start("test")
    world.settle()
    world.app.statistics_recorder.stop()
    result = tidegate("stats")
    assert result.code == 0
    words = ("named queries", "users.read_range", "batch sizes", "user cache:", "evaluations a message", "shop/hello")
    assert all(item in result.out for item in (*words, "too little"))


def test_a_campaign_with_many_evaluations_per_message_comes_first(
    installation: Installation, tidegate: Tidegate
) -> None:
    world = installation.world
    world.users([f"u{i}" for i in range(30)], plan="free")
    world.users(["u30"], plan="pro")
    for name, plan in (("many", "free"), ("few", "pro"), ("nobody", "none")):
        world.apply({"campaign": name, "kind": "one_off", "audience": {"plan": plan}})
        world.launch(name)
    world.settle()
    answer = tidegate("stats", "--json").document["campaigns"]
    assert [row["campaign"] for row in answer] == ["nobody", "few", "many"]
    assert answer[0]["looked_at_per_message"] is None
    assert answer[1]["looked_at_per_message"] > answer[2]["looked_at_per_message"]
    assert len(tidegate("stats", "--campaigns", "1", "--json").document["campaigns"]) == 1
    assert tidegate("stats", "-w", "nosuch", "--json").code == 2


def test_an_inactivity_window_is_advised_from_enough_enrolments(installation: Installation, tidegate: Tidegate) -> None:
    world = installation.world
    world.users([f"u{i}" for i in range(320)])
    messages = [{"name": name, "channel": "email", "subject": name, "body": name} for name in ("one", "two")]
    world.apply({"campaign": "series", "kind": "one_off", "messages": [messages[0], messages[1] | {"wait": "3d"}]})
    world.launch("series")
    world.settle()
    world.after("4d")
    (answer,) = tidegate("stats", "--json").document["campaigns"]
    assert answer["quiet_stretches"] == 640
    assert (answer["inactivity"], answer["inactivity_advised"]) == ("45d", "4d")


@pytest.mark.parametrize("within", ["1", "soon", "-1h"])
def test_an_unreadable_duration_exits_2(within: str, tidegate: Tidegate) -> None:
    result = tidegate("stats", f"--within={within}")
    assert result.code == 2
    assert "--within" in result.err


def test_stats_show_cache_hits_and_the_cache_content(make_world: Callable[..., World], services: Any) -> None:
    world = make_world(reading=True)
    installation = Installation(world, services, {})
    world.users([f"u{i}" for i in range(40)])
    world.feed()
    cache = world.app.cached_users
    assert cache is not None
    MEASUREMENTS.figures(anew=True)  # other tests of this process read too
    world.app.statistics_recorder.start("test")
    for _ in range(4):
        with measured("cache.read") as call:
            batches = cache.scan("shop", "0", HIGHEST, frozenset(), world.app.campaign_cache.catalogue("shop"))
            assert batches is not None
            call.documents = sum(len(batch.rows) for batch in batches)
    world.app.statistics_recorder.stop()
    answer = installation.call("stats", "--json").document["cache"]
    assert (answer["read"], answer["loaded"], answer["hit_rate"]) == (160, 40, 0.75)
    assert answer["memory"]["used"] > 0
    assert "75.00% of 160 users" in installation.call("stats").out
