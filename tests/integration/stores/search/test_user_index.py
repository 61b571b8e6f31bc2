"""The users' index on a real Elasticsearch: the newest wins, tombstones are never found, keys are in order."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from engine.domain.keys import HIGHEST, cut, user_key
from engine.errors import ServiceUnreachable
from engine.stores.search import user_index
from engine.stores.search.user_index import NotIndexed, UserIndex, chunks

pytestmark = pytest.mark.elastic

TEMPLATE = json.loads((Path(__file__).parents[4] / "conf/index-templates/users.json").read_text())
EVERYBODY: dict[str, Any] = {"match_all": {}}


@pytest.fixture
def index(elastic: Elasticsearch) -> Iterator[UserIndex]:
    users = UserIndex(elastic, f"test-users-{uuid.uuid4().hex[:12]}")
    users.ensure(TEMPLATE)
    yield users
    elastic.indices.delete(index=f"{users.alias}-*")
    elastic.indices.delete_index_template(name=users.alias)


def document(user: str, rev: int = 1, *, workspace: str = "w", deleted: bool = False, **fields: Any) -> dict[str, Any]:
    key = user_key(workspace, user)
    return {
        "w": workspace, "h": key.split("/")[1], "user_id": key, "rev": rev, "deleted": deleted, "lists": [], **fields
    }  # fmt: skip


def test_creating_the_index_twice_is_harmless(index: UserIndex) -> None:
    index.ensure(TEMPLATE)
    assert index.index([document("a")]) == 1


def test_matching_keys_are_yielded_by_range_in_order(index: UserIndex, monkeypatch: Any) -> None:
    monkeypatch.setattr(user_index, "LARGEST_PAGE", 70)
    index.index([document(f"u{n}", i={"a:age": n}) for n in range(400)])
    index.index([document(f"u{n}", workspace="w2", i={"a:age": n}) for n in range(50)])
    index.refresh()
    young = {"range": {"i.a:age": {"lt": 300}}}
    expected = sorted(user_key("w", f"u{n}") for n in range(300))
    assert [key for first, until in cut(5) for key in index.ids(young, "w", first, until, 1_000)] == expected
    paged: list[str] = []
    first = "0"
    while batch := index.ids(young, "w", first, HIGHEST, 33):
        paged += batch
        first = batch[-1].split("/", 1)[1] + "\0"
    assert paged == expected
    middle = expected[150].split("/", 1)[1]
    assert index.ids(young, "w", "0", middle, 1_000) == expected[:150]
    assert index.count(young, "w") == 300


def test_an_older_revision_does_not_replace_a_newer_one(index: UserIndex) -> None:
    assert index.index([document("u", 5, i={"a:age": 1})]) == 1
    assert index.index([document("u", 4, i={"a:age": 2}), document("v", 1)]) == 1
    assert index.index([document("u", 5, i={"a:age": 3})]) == 0
    index.refresh()
    assert index.count({"term": {"i.a:age": 1}}, "w") == 1


def test_a_tombstone_is_not_found_and_not_revived(index: UserIndex) -> None:
    index.index([document("u", 1), document("v", 1)])
    index.index([document("u", 2, deleted=True)])
    index.index([document("u", 1)])
    index.refresh()
    assert index.ids(EVERYBODY, "w", "0", HIGHEST, 10) == [user_key("w", "v")]
    assert index.delete({user_key("w", "v"): 2, user_key("w", "x"): 2}) == 1
    index.refresh()
    assert index.count(EVERYBODY, "w") == 0


def test_refused_documents_are_reported_and_the_others_are_indexed(index: UserIndex) -> None:
    bad = document("secret-person", 1, i={"a:age": "not a number of secret-person"})
    with pytest.raises(NotIndexed) as caught:
        index.index([document("a"), bad, document("b"), {**document("c"), "unknown": 1}])
    assert "refused 2 users" in str(caught.value)
    assert "secret-person" not in str(caught.value)
    index.refresh()
    assert index.count(EVERYBODY, "w") == 2


def test_ids_longer_than_elasticsearch_allows_are_indexed_too(index: UserIndex) -> None:
    long = "ü" * 240
    index.index([document(long, 1), document(long, 2), document("ü" * 241, 1)])
    index.refresh()
    assert index.ids(EVERYBODY, "w", "0", HIGHEST, 10) == sorted([user_key("w", long), user_key("w", "ü" * 241)])


def test_an_unanswerable_query_raises(index: UserIndex) -> None:
    with pytest.raises(NotIndexed):
        index.ids({"no_such_query": {}}, "w", "0", HIGHEST, 10)


def test_an_unreachable_server_raises() -> None:
    client = Elasticsearch("http://127.0.0.1:1", request_timeout=1, max_retries=0)
    with pytest.raises(ServiceUnreachable):
        UserIndex(client).index([document("u")])
    with pytest.raises(ServiceUnreachable):
        UserIndex(client).ids(EVERYBODY, "w", "0", HIGHEST, 1)
    client.close()


def test_bulk_requests_are_split_by_bytes(monkeypatch: Any) -> None:
    monkeypatch.setattr(user_index, "BULK", 10)
    assert list(chunks([b"123456", b"1234", b"1", b"x" * 50, b"y"])) == [
        [b"123456", b"1234"],
        [b"1"],
        [b"x" * 50],
        [b"y"],
    ]
