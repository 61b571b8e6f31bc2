"""Index requests are kept until they are done, and enqueued again if unheard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest
from pymongo.database import Database

from engine.catalogue.workspace_file import read_workspaces
from engine.catalogue.workspace_set import indexed_shape
from engine.clock import SystemClock
from engine.domain.keys import cut
from engine.pipeline.feed.dispatch_indexing import IndexTurns
from engine.pipeline.feed.search_indexing import Behind, SearchIndexer
from engine.stores.migrations import migrate_mongo
from engine.stores.mongo.index_requests import KEYS_AT_ONCE, IndexRequest, IndexRequests
from tests.support.pipeline_world import World

LATER = timedelta(seconds=-1)
"""A time ago that is still to come: everything counts as unheard."""


class Taken:
    """An index that notes the documents it gets, or refuses them."""

    def __init__(self, *, away: bool = False) -> None:
        self.users: list[str] = []
        self.refreshed = 0
        self.away = away

    def refresh(self) -> None:
        """Do nothing: accepted documents are visible at once."""
        self.refreshed += 1

    def index(self, documents: Iterable[Mapping[str, Any]], *, again: bool = False) -> int:
        if self.away:
            raise ConnectionError("away")
        before = len(self.users)
        self.users += [document["user_id"] for document in documents]
        return len(self.users) - before


def indexing(world: World, index: Taken, *, busy: bool = False) -> SearchIndexer:
    stores = world.app.stores
    catalogues, reread = world.app.catalogues, world.app.workspace_watcher.look
    return SearchIndexer(
        users=stores.users,
        index=index,
        requests=stores.index_requests,
        catalogues=catalogues,
        shapes=lambda: stores.feeds.read().shapes,
        reread=reread,
        derivation=stores.derivation,
        derived=lambda: stores.feeds.read().derived,
        mails_go_out=lambda: busy,
    )


def test_a_finished_request_is_removed(world: World) -> None:
    key = world.user("u")
    [request] = world.app.stores.index_requests.add([IndexRequest(keys=[key])])
    index = Taken()
    assert indexing(world, index).run(request) == 1
    assert indexing(world, index).run(request) == 0
    assert index.users == [key]


def test_a_failed_request_is_kept(world: World) -> None:
    [request] = world.app.stores.index_requests.add([IndexRequest(keys=[world.user("u")])])
    with pytest.raises(ConnectionError):
        indexing(world, Taken(away=True)).run(request)
    assert world.app.stores.index_requests.get(request) is not None


def test_a_range_request_indexes_exactly_the_users_in_it(world: World) -> None:
    world.users([f"u{i}" for i in range(50)])
    requests = [IndexRequest((), "shop", "", "8"), IndexRequest((), "shop", "8", "g")]
    index = Taken()
    for request in world.app.stores.index_requests.add(requests):
        indexing(world, index).run(request)
    assert sorted(index.users) == sorted(raw["_id"] for raw in world.database["users"].find({"w": "shop"}))


def test_a_request_waits_for_a_process_that_has_read_the_files_of_the_feed(world: World) -> None:
    feeds, now = world.app.stores.feeds, indexed_shape(world.app.catalogues["shop"])
    [request] = world.app.stores.index_requests.add([IndexRequest(keys=[world.user("u")])])
    feeds.fills("users-1/uuid", {"shop": "of an edited file"})
    with pytest.raises(Behind):
        indexing(world, Taken()).run(request)
    feeds.fills("users-1/uuid", {"shop": now})

    class Edited(Taken):
        def index(self, documents: Iterable[Mapping[str, Any]], *, again: bool = False) -> int:
            feeds.fills("users-1/uuid", {"shop": "edited meanwhile"})
            return super().index(documents, again=again)

    with pytest.raises(Behind):
        indexing(world, Edited()).run(request)
    assert world.app.stores.index_requests.get(request) is not None
    world.workspace(attributes={"tier": "string"})
    feeds.fills("users-1/uuid", {"shop": indexed_shape(read_workspaces(world.settings.paths.workspaces)["shop"])})
    assert indexing(world, Taken()).run(request) == 1, "it reads the files again by itself"


def test_a_request_for_everybody_replaces_earlier_ones_of_its_workspace(world: World) -> None:
    """Elasticsearch joins while users are imported: no user is indexed twice."""
    requests = world.app.stores.index_requests
    key = world.user("u")
    (old,) = requests.add([IndexRequest(keys=[key])])
    (other,) = requests.add([IndexRequest(keys=[world.user("u", "other")])])
    made = world.app.index_filling.reindex("shop")
    assert requests.get(old) is None
    assert requests.get(other) is not None
    index = Taken()
    for request in made:
        indexing(world, index).run(request)
    assert index.users == [key]


def test_the_last_request_refreshes_the_index_for_all(world: World) -> None:
    requests = world.app.stores.index_requests
    ids = requests.add([IndexRequest(keys=[world.user(f"u{number}")]) for number in range(5)])
    index = Taken()
    for request in ids[:-1]:
        indexing(world, index).run(request)
        indexing(world, index).run(request)  # its message arrived twice
    assert (len(index.users), index.refreshed) == (4, 0)
    assert requests.any()
    indexing(world, index).run(ids[-1])
    assert (len(index.users), index.refreshed) == (5, 1)
    assert not requests.any()


class Told:
    """Notes the requests that are enqueued, each with whether it waits for its turn."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bool]] = []

    def index(self, requests: Sequence[str], *, in_turn: bool = False) -> None:
        self.heard += [(request, in_turn) for request in requests]


class HandClock(SystemClock):
    """A clock that a test moves."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


def test_range_requests_are_indexed_one_at_a_time_while_mails_are_sent(world: World) -> None:
    requests, index, busy = world.app.stores.index_requests, Taken(), True
    users = [world.user(f"u{number}") for number in range(4)]
    ranges = requests.add([IndexRequest((), "shop", *request) for request in cut(4)])
    listener, clock = Told(), HandClock()
    turns = IndexTurns(requests, lambda: busy, listener, clock)  # type: ignore[arg-type] - of a messenger it uses this only
    for range_ in ranges:
        assert indexing(world, index, busy=True).run(range_) == 0
    assert not index.users
    for second in range(9):
        clock.seconds = second
        turns.run()
    assert [in_turn for _, in_turn in listener.heard] == [True] * 3, "one in four seconds"
    for line, in_turn in listener.heard:
        indexing(world, index, busy=True).run(line, in_turn=in_turn)
    busy = False
    turns.run()
    assert [in_turn for _, in_turn in listener.heard[3:]] == [False]
    indexing(world, index).run(listener.heard[3][0])
    assert sorted(index.users) == sorted(users)
    assert not turns.run()


def test_requests_by_key_do_not_wait_for_mails(world: World) -> None:
    key = world.user("u")
    [request] = world.app.stores.index_requests.add([IndexRequest(keys=[key])])
    index = Taken()
    indexing(world, index, busy=True).run(request)
    assert index.users == [key]


def test_one_of_two_concurrent_requests_refreshes_the_index_for_both(world: World) -> None:
    requests = world.app.stores.index_requests
    first, second = requests.add([IndexRequest(keys=[world.user(name)]) for name in ("u1", "u2")])
    assert requests.indexed(first) == []
    assert sorted(requests.indexed(second)) == sorted([first, second]), "whoever comes later knows of both"
    index = Taken()
    indexing(world, index).run(first)  # the worker died before it claimed the request, which was enqueued again
    assert (index.users, index.refreshed) == ([], 1)
    assert not requests.any()


def test_many_keys_are_split_into_several_requests(database: Database[dict[str, Any]]) -> None:
    migrate_mongo(database)
    requests = IndexRequests(database)
    ids = requests.add([IndexRequest(keys=[f"w/0/{i}" for i in range(KEYS_AT_ONCE + 1)])])
    stored = [requests.get(request) for request in ids]
    assert [len(request.keys) for request in stored if request is not None] == [KEYS_AT_ONCE, 1]


def test_an_unclaimed_request_is_enqueued_again(database: Database[dict[str, Any]]) -> None:
    migrate_mongo(database)
    requests = IndexRequests(database)
    ids = requests.add([IndexRequest(keys=["w/0/a"])])
    assert requests.unheard(timedelta(hours=1), 10) == []
    assert requests.unheard(LATER, 10) == ids
    requests.done(ids)
    assert requests.unheard(LATER, 10) == []
