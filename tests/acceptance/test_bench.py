"""The bench measures what it claims: the naive way finds matching users, counters are mongod's, tables stay whole."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pymongo.database import Database

from bench import report
from bench.audiences import AUDIENCES, ONE_FIFTH, ONE_PERCENT
from bench.measure import Measured, Rounds, side_by_side
from bench.naive import NaiveWay, matches
from bench.population import AS_OF, DAY_MS, documents


def user(**changed: object) -> dict[str, Any]:
    """Return a user who matches the first audience, with some aggregates changed."""
    aggregates = {
        "orders_count": 3,
        "orders_value": 200_00,
        "last_order_at": AS_OF - 14 * DAY_MS,
        "first_order_at": AS_OF - 60 * DAY_MS,
    }
    traits = {"age": changed.pop("age", "35-44")}
    unsubscribed = changed.pop("unsubscribed", False)
    return {"a": traits, "g": {**aggregates, **changed}, "unsubscribed": unsubscribed}


TREE = {
    "all": [
        {"orders_count": {"gte": 3}},
        {"orders_value": {"gte": 200}},
        {"last_order_at": {"older_than": "14d"}},
        {"first_order_at": {"older_than": "60d"}},
        {"age": {"in": ["35-44", "45-54"]}},
    ],
    "none": [{"unsubscribed": True}],
}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, True),
        ({"orders_count": 2}, False),
        ({"orders_value": 199_99}, False),
        ({"last_order_at": AS_OF - 14 * DAY_MS + 1}, False),
        ({"first_order_at": None}, False),
        ({"age": "25-34"}, False),
        ({"unsubscribed": True}, False),
    ],
)
def test_the_naive_tree_walk_decides_each_clause(changed: dict[str, object], expected: bool) -> None:
    assert matches(TREE, user(**changed), AS_OF) is expected


def test_a_population_is_the_same_for_the_same_seed_and_has_keys_of_its_own() -> None:
    some = list(documents(50))
    assert some == list(documents(50))
    assert some != list(documents(50, seed=1))
    assert len({item["_id"] for item in some}) == 50


def test_the_naive_way_enrols_matching_users_and_mongod_counts_its_commands(database: Database[dict[str, Any]]) -> None:
    population = list(documents(300))
    database["users"].insert_many(population)
    keys = [str(member["_id"]) for member in population]
    ways = [NaiveWay(database, keys, audience, AS_OF) for audience in (ONE_PERCENT, ONE_FIFTH)]
    few, many = side_by_side(database, ways, rounds=1)
    assert 0 < few.passes[0].matched < many.passes[0].matched < 150
    assert ways[1].entered() >= ways[0].entered()
    assert len(ways[1].entered()) == many.passes[0].matched
    assert many.passes[0].commands >= 300 + many.passes[0].matched
    assert many.passes[0].examined >= 300


def test_bench_audiences_match_the_shares_in_their_names() -> None:
    population = list(documents(2_000))

    shares = {
        name: sum(matches(yaml.safe_load(audience), member, AS_OF) for member in population) / len(population)
        for name, audience in AUDIENCES.items()
    }
    assert 0.005 < shares["1%"] < 0.02
    assert 0.19 < shares["22%"] < 0.25


def test_a_table_gives_medians_and_the_ratio_to_the_first_way() -> None:
    slow = Rounds("naive", [Measured(100, 10, seconds, 0.01, 0.02, 110, 100) for seconds in (1.0, 2.0, 4.0)])
    fast = Rounds("ours", [Measured(1000, 100, 0.1, 0.001, 0.001, 5, 1000)])
    lines = report.table([slow, fast]).splitlines()
    assert "| naive | 100 | 10 (10.0%) | 50 (25 to 100) | 1.0 | 100.0 µs, 200.0 µs | 1,100.00 | 1.000 |" in lines
    assert lines[-1].startswith("| ours | 1,000 | 100 (10.0%) | 10,000 (10,000 to 10,000) | 200.0 |")


def test_a_table_replaces_only_the_text_between_its_marks() -> None:
    page = "before\n<!-- x -->\nold\n<!-- /x -->\nafter\n"
    assert report.put(page, "x", "new") == "before\n<!-- x -->\n\nnew\n\n<!-- /x -->\nafter\n"
    with pytest.raises(ValueError, match="no marks <!-- y -->"):
        report.put(page, "y", "new")


@pytest.mark.parametrize(
    "mark", ["bench.run passes", "bench.run search", "bench.run paths", "bench.run small", "bench.importing"]
)
def test_the_page_has_the_marks_of_the_bench(mark: str) -> None:
    assert report.put(report.PAGE.read_text(encoding="utf-8"), mark, "new")
