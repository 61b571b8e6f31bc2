"""Elasticsearch loses its users, or refuses them: no user is missed, and the index recovers by itself."""

from __future__ import annotations

import threading
import time
from typing import Any, Final

import pytest
from elasticsearch import Elasticsearch

from engine.domain.work import AccessPath
from engine.pipeline.feed import change_feed
from engine.stores.search.user_index import UserIndex
from engine.telemetry.events import listening
from tests.support.installation import PATIENCE
from tests.support.pipeline_world import World
from tests.support.reading_world import entered, following

pytestmark = pytest.mark.elastic

GOLD: Final[dict[str, Any]] = {"plan": "gold"}
USERS: Final = [f"u{i}" for i in range(30)]


@pytest.fixture
def golden(reading: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world with thirty indexed users and a feed that checks the index at every step."""
    monkeypatch.setattr(change_feed, "TENDED", 0.0)
    reading.users(USERS, plan="gold")
    reading.feed()
    return reading


def index_of(world: World) -> UserIndex:
    index = world.app.stores.user_index
    assert index is not None
    return index


def fill(world: World) -> int:
    """Process the messages of the actor `index_users`; return the number of requests."""
    requests = [raw["_id"] for raw in world.database["index_requests"].find()]
    for request in requests:
        world.app.search_indexer.run(request, in_turn=True)
    return len(requests)


def wipe(world: World, elastic: Elasticsearch) -> None:
    """Delete the users' index."""
    elastic.indices.delete(index=f"{index_of(world).alias}-*")


def until_made(world: World) -> None:
    """Wait until the running feed has created an index and requested every user."""
    pause, deadline = threading.Event(), time.monotonic() + PATIENCE
    while (
        world.app.stores.feeds.read().index is None or world.app.stores.feeds.read().index != index_of(world).identity()
    ):
        assert time.monotonic() < deadline, "no index was made"
        pause.wait(0.01)


def test_a_lost_index_is_created_and_filled_again(golden: World, elastic: Elasticsearch) -> None:
    before = index_of(golden).identity()
    wipe(golden, elastic)
    assert index_of(golden).identity() is None
    with listening() as events, following(golden):
        until_made(golden)
        assert index_of(golden).identity() != before
        assert entered(golden, "empty", GOLD, AccessPath.ELASTIC) == (set_of(golden), "scan")
        assert fill(golden) > 0
        assert entered(golden, "filled", GOLD, AccessPath.ELASTIC) == (set_of(golden), "elastic")
    assert len(events.of("search.refilled")) == 1


def test_a_run_planned_before_the_loss_misses_no_user(golden: World, elastic: Elasticsearch) -> None:
    def lose_and_make_anew() -> None:
        wipe(golden, elastic)
        until_made(golden)

    with following(golden):
        users = entered(golden, "lost", GOLD, AccessPath.ELASTIC, planned=lose_and_make_anew)
    assert users == (set_of(golden), "elastic")


def test_a_pass_is_not_skipped_because_an_empty_index_finds_nobody(golden: World, elastic: Elasticsearch) -> None:
    wipe(golden, elastic)
    golden.feed()
    record = golden.apply({"campaign": "probed", "audience": GOLD}).record
    entry = golden.app.campaign_cache.of(record)
    candidates = entry.compiled.candidates(None, golden.now)
    golden.app.access_paths.small = -1
    assert golden.app.access_paths.probe(entry, candidates)
    fill(golden)
    assert golden.app.access_paths.probe(entry, candidates), "what was filled is to be seen at once"


def test_a_feed_killed_before_it_notes_the_new_index_requests_it_again(
    golden: World, elastic: Elasticsearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    class DiedError(Exception):
        """The process is gone."""

    def die(*_: object) -> None:
        raise DiedError

    wipe(golden, elastic)
    with monkeypatch.context() as patch:
        patch.setattr(golden.app.stores.feeds, "fills", die)
        with pytest.raises(DiedError):
            golden.feed()
    golden.feed()
    fill(golden)
    with following(golden):
        assert entered(golden, "again", GOLD, AccessPath.ELASTIC) == (set_of(golden), "elastic")


def test_users_created_before_a_full_request_are_indexed_once(golden: World, elastic: Elasticsearch) -> None:
    """Elasticsearch joins during an import: the feed is behind, and every user is read again."""
    wipe(golden, elastic)
    golden.users([f"v{number}" for number in range(20)], plan="gold")
    golden.feed()
    assert taken_by(golden, elastic) == 0
    fill(golden)
    assert taken_by(golden, elastic) == 50
    golden.change("v7", plan="silver")
    golden.feed()
    assert taken_by(golden, elastic) == 51, "who changes afterwards is written at once"
    assert index_of(golden).count({"match_all": {}}, "shop") == 50


def test_users_are_indexed_once_a_campaign_searches_their_workspace(golden: World, elastic: Elasticsearch) -> None:
    golden.workspace("quiet")
    golden.reload()
    golden.users(USERS, "quiet", plan="gold")
    golden.feed()
    assert golden.app.plans.plan(golden.apply({"campaign": "all", "workspace": "quiet"}).record).audience == 30
    golden.feed()
    assert (fill(golden), in_quiet(golden)) == (0, 0), "to everybody: nothing is searched for"
    golden.apply({"campaign": "few", "workspace": "quiet", "audience": GOLD})
    golden.users(["late"], "quiet", plan="gold")
    with listening() as events:
        golden.feed()
    assert [occurrence.fields["text"] for occurrence in events.of("search.refilled")] == ["quiet"]
    assert fill(golden) > 0
    golden.users(["later"], "quiet", plan="gold")
    golden.feed()
    assert in_quiet(golden) == 32


def in_quiet(world: World) -> int:
    """Return the number of users of the workspace in Elasticsearch."""
    index_of(world).refresh()
    return index_of(world).count({"match_all": {}}, "quiet")


def test_a_plan_requests_the_index_of_a_workspace_not_searched_before(golden: World) -> None:
    """The campaign was applied before an upgrade, or has a goal that users can reach by time."""
    golden.workspace("quiet")
    golden.reload()
    golden.users(USERS, "quiet", plan="gold")
    record = golden.apply({"campaign": "few", "workspace": "quiet", "audience": GOLD}).record
    golden.database["feeds"].update_one({}, {"$pull": {"searched": "quiet"}})
    golden.feed()
    golden.app.access_paths.small = -1
    with following(golden):
        golden.app.plans.plan(record)
    assert "quiet" in golden.app.stores.feeds.read().searched
    golden.feed()
    assert fill(golden) > 0
    with following(golden):
        assert golden.app.plans.plan(record).counted == "by Elasticsearch"


def taken_by(world: World, elastic: Elasticsearch) -> int:
    """Return the number of documents sent to the index so far."""
    total = elastic.indices.stats(index=index_of(world).alias, metric="indexing")["_all"]["primaries"]["indexing"]
    return int(total["index_total"]) + int(total["index_failed"])


def test_campaigns_continue_while_elasticsearch_is_ten_minutes_behind(golden: World, elastic: Elasticsearch) -> None:
    """Elasticsearch answers but refuses every write, as with a nearly full disk."""
    index = index_of(golden)
    elastic.indices.put_settings(index=index.alias, settings={"index.blocks.write": True})
    with listening() as events:
        for minute in range(10):
            golden.change(USERS[minute], plan="silver")
            golden.feed()
            golden.advance("1m")
            with following(golden):
                users = entered(golden, f"minute{minute}", GOLD, AccessPath.ELASTIC)
            assert users == (set_of(golden, minute + 1), "scan")
    assert [occurrence.fields["service"] for occurrence in events.of("service.lost")] == ["elasticsearch"], (
        "one warning"
    )
    elastic.indices.put_settings(index=index.alias, settings={"index.blocks.write": False})
    assert fill(golden) > 0
    golden.change(USERS[10], plan="silver")
    with listening() as events:
        golden.feed()
    with following(golden):
        assert entered(golden, "back", GOLD, AccessPath.ELASTIC) == (set_of(golden, 11), "elastic")
    assert len(events.of("service.back")) == 1


def set_of(world: World, first: int = 0) -> set[str]:
    """Return the keys of all users from that number on."""
    keys = [raw["_id"] for raw in world.database["users"].find({}, {"_id": 1})]
    return {key for key in keys if int(key.rsplit("/u", 1)[1]) >= first}
