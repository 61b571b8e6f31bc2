"""The users' one update path, and their key ranges, on a real MongoDB."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import AutoReconnect

from engine.domain.counts import Population
from engine.domain.document import Document
from engine.domain.keys import HIGHEST, cut, user_key
from engine.stores.mongo.users import Contended, Edit, Users
from tests.support.store_proxy import Cutting


def add(users: Users, *ids: str, workspace: str = "w") -> None:
    edits = {user_key(workspace, name): Edit({"email": f"{name}@x.example"}, ["email"]) for name in ids}
    users.rewrite(edits, lambda some, documents: {key: edits[key] for key in some if key not in documents})


def test_suffix_ranges_yield_every_user_once_in_order(database: Database[Document]) -> None:
    users = Users(database)
    add(users, *(f"u{n}" for n in range(500)))
    add(users, *(f"u{n}" for n in range(50)), workspace="w2")
    keys = [document["_id"] for first, until in cut(7) for document in users.read_range("w", first, until, 1_000)]
    assert keys == sorted(user_key("w", f"u{n}") for n in range(500))
    paged: list[str] = []
    first = "0"
    while batch := users.read_range("w", first, HIGHEST, 64, {"_id": 1}):
        paged += [document["_id"] for document in batch]
        first = batch[-1]["_id"].split("/", 1)[1] + "\0"
    assert paged == keys
    assert users.read_range("x", "0", HIGHEST, 10) == []


def test_users_are_read_by_key_in_order_and_unknown_keys_are_skipped(database: Database[Document]) -> None:
    users = Users(database)
    add(users, "a", "b", "c")
    keys = [user_key("w", item) for item in ("c", "x", "a")]
    assert [document["_id"] for document in users.read_keys(keys)] == sorted((keys[0], keys[2]))
    assert users.get(keys[1]) is None


def test_an_estimate_is_exact_for_few_users_and_close_for_many(database: Database[Document]) -> None:
    users = Users(database)
    assert users.estimate("w") == 0
    add(users, *(f"u{n}" for n in range(300)))
    assert users.estimate("w") == 300
    add(users, *(f"u{n}" for n in range(300, 30_000)))
    assert 27_000 < users.estimate("w") < 33_000


def test_a_population_is_counted_up_to_a_bound_and_marked_beyond_it(database: Database[Document]) -> None:
    users = Users(database)
    add(users, *(f"u{n}" for n in range(9_000)))
    for n in range(100):
        users.delete(user_key("w", f"u{n}"))
    assert users.population("w", 9_000) == Population(8_900, estimated=False)
    population = users.population("w", 8_999)
    assert population.estimated
    assert 9_000 <= population.users < 10_000
    assert users.population("nobody", 0) == Population(0, estimated=False)


def test_the_revision_rises_with_every_write_even_when_the_servers_clock_is_behind(
    database: Database[Document],
) -> None:
    users = Users(database)
    add(users, "u")
    key = user_key("w", "u")
    ahead = users.server_now() + 10_000_000
    database["users"].update_one({"_id": key}, {"$set": {"rev": ahead}})
    for number in range(1, 4):
        users.rewrite([key], lambda some, documents, n=number: {key: Edit({"a.age": n}, ["age"])})  # type: ignore[misc]
        document = users.get(key)
        assert document is not None
        assert document["rev"] == ahead + number
        assert document["changed"] == ["age"]
    assert users.delete(key)
    gone = users.get(key)
    assert gone == {"_id": key, "w": "w", "u": "u", "rev": ahead + 4, "changed": ["deleted"], "deleted": True}


def test_a_new_users_revision_is_the_servers_time(database: Database[Document]) -> None:
    users = Users(database)
    before = users.server_now()
    add(users, "u")
    document = users.get(user_key("w", "u"))
    assert document is not None
    assert before <= document["rev"] <= users.server_now()
    assert document["changed"] == ["created", "email"]


def test_a_writer_that_read_an_older_revision_retries(database: Database[Document]) -> None:
    users = Users(database)
    add(users, "u", "v")
    key, other = user_key("w", "u"), user_key("w", "v")
    asked_for: list[set[str]] = []

    def plan(some: Collection[str], documents: Mapping[str, Document]) -> dict[str, Edit]:
        asked_for.append(set(some))
        if len(asked_for) == 1:
            users.rewrite([key], lambda _asked, _documents: {key: Edit({"a.age": 5}, ["age"])})
        ages = {each: (documents[each].get("a") or {}).get("age", 0) + 1 for each in some}
        if len(asked_for) > 1:
            ages = {key_of_user: age for key_of_user, age in ages.items() if key_of_user == key}
        return {key_of_user: Edit({"a.age": age}, ["age"]) for key_of_user, age in ages.items()}

    assert users.rewrite([key, other], plan) == {key: False, other: False}
    assert asked_for == [{key, other}, {key, other}]
    assert {document["u"]: document["a"]["age"] for document in database["users"].find()} == {"u": 6, "v": 1}


@pytest.fixture
def cutting(services: Any) -> Iterator[Cutting]:
    made = Cutting(int(services.mongo_url.partition("/?")[0].rpartition(":")[2]), "update")
    yield made
    made.close()


@pytest.fixture
def through(cutting: Cutting, database: Database[Document]) -> Iterator[Users]:
    """Yield the users of `database` through a proxy, `cutting`."""
    with MongoClient[Document]("127.0.0.1", cutting.port, directConnection=True, timeoutMS=30_000) as client:
        yield Users(client[database.name])


def test_updates_whose_answer_was_lost_are_retried_and_written_once(
    database: Database[Document], cutting: Cutting, through: Users
) -> None:
    add(Users(database), "u", "v")
    keys = [user_key("w", item) for item in ("u", "v", "new")]

    def plan(some: Collection[str], documents: Mapping[str, Document]) -> dict[str, Edit]:
        ages = {key: (documents[key].get("a") or {}).get("age") if key in documents else None for key in some}
        return {key: Edit({"a.age": 7}, ["age"]) for key, age in ages.items() if age != 7}

    cutting.cuts = 1
    assert through.rewrite(keys, plan) == {keys[0]: False, keys[1]: False, keys[2]: True}
    assert cutting.cuts == 0
    by_name = {document["u"]: (document["a"]["age"], document["changed"]) for document in database["users"].find()}
    assert by_name == {"u": (7, ["age"]), "v": (7, ["age"]), "new": (7, ["created", "age"])}


def test_a_connection_that_breaks_again_and_again_is_an_error(
    database: Database[Document], cutting: Cutting, through: Users
) -> None:
    add(Users(database), "u")
    key, ages = user_key("w", "u"), iter(range(100))
    cutting.cuts = 2
    with pytest.raises(AutoReconnect):
        through.rewrite([key], lambda some, _: {each: Edit({"a.age": next(ages)}, ["age"]) for each in some})
    assert cutting.cuts == 0


def test_eight_concurrent_writers_lose_no_increment(database: Database[Document]) -> None:
    users = Users(database)
    add(users, *(f"u{n}" for n in range(20)))
    keys = [user_key("w", f"u{n}") for n in range(20)]

    def write(number: int) -> None:
        def plan(some: Collection[str], documents: Mapping[str, Document]) -> dict[str, Edit]:
            before = {each: (documents[each].get("a") or {}).get("all", 0) for each in some}
            if any(f"by{number}" in (documents[each].get("a") or {}) for each in some):
                return {}
            return {each: Edit({f"a.by{number}": 1, "a.all": count + 1}, ["all"]) for each, count in before.items()}

        for key in keys:
            users.rewrite([key], plan)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [document["a"]["all"] for document in database["users"].find()] == [8] * 20


def test_an_endless_write_conflict_raises(database: Database[Document]) -> None:
    users = Users(database)
    add(users, "u")
    key = user_key("w", "u")

    def plan(some: Collection[str], documents: Mapping[str, Document]) -> dict[str, Edit]:
        database["users"].update_one({"_id": key}, {"$inc": {"rev": 1}})
        return {each: Edit({"a.age": documents[each]["rev"]}, ["age"]) for each in some}

    with pytest.raises(Contended):
        users.rewrite([key], plan)
