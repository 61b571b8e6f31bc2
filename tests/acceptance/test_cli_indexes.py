"""`tidegate check`: a named query without its index is an error; a predicate without an index is only reported."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.installation import Installation, Told

Tidegate = Callable[..., Told]


def test_a_predicate_without_an_index_is_advised_with_the_command_that_creates_it(
    installation: Installation, tidegate: Tidegate
) -> None:
    world = installation.world
    world.users([f"u{i}" for i in range(90)], plan="free")
    world.users([f"u{i}" for i in range(90, 100)], plan="pro")
    world.apply({"campaign": "hello", "audience": {"plan": "pro"}})
    world.apply({"campaign": "again", "audience": {"plan": "pro"}})
    result = tidegate("check", "--indexes")
    assert result.code == 0
    assert (
        "campaign shop/hello: audience: no index on users.a.plan; a MongoDB scan reads every user of shop (100)"
        in result.out
    )
    assert 'db.users.createIndex({"w": 1, "a.plan": 1, "_id": 1})  // 2 predicates' in result.out
    document = tidegate("check", "--indexes", "--json").document
    assert all(row["ok"] for row in document["queries"])
    assert {row["campaign"]: row["would_read"] for row in document["predicates"]} == {"again": 10, "hello": 10}
    assert [row["predicates"] for row in document["suggested"]] == [2]


def test_a_named_query_without_its_index_is_an_error(installation: Installation, tidegate: Tidegate) -> None:
    (row,) = [entry for entry in tidegate("check", "--json").document if entry["check"] == "indexes"]
    assert row["ok"]
    installation.world.database.slices.drop_index("open")
    result = tidegate("check", "--json")
    assert result.code in (1, 3)
    (row,) = [entry for entry in result.document if entry["check"] == "indexes"]
    assert not row["ok"]
    assert "slices has no index open" in row["told"]
    assert "tidegate migrate" in row["told"]
    result = tidegate("check", "--indexes")
    assert result.code == 1
    assert "slices has no index open" in result.out
    assert tidegate("migrate").code == 0
    assert tidegate("check", "--indexes").code == 0


def test_an_empty_installation_is_reported(tidegate: Tidegate) -> None:
    result = tidegate("check", "--indexes")
    assert result.code == 0
    assert "there is no applied campaign that has not ended" in result.out
