"""The index advisor on a real MongoDB: which index serves a query, what is missing, what it would save."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from engine.pipeline.insight.index_advisor import Advice
from engine.stores.migrations import migrate_mongo
from engine.stores.mongo.index_advisor import SAMPLE, IndexAdvisor
from tests.support.pipeline_world import World

USERS = 400


@pytest.fixture(autouse=True)
def indexes_as_before(world: World) -> Iterator[None]:
    """A world whose index changes are undone, because other tests use the database again."""
    yield
    world.database.users.drop_indexes()
    migrate_mongo(world.database)


@pytest.fixture
def shop(world: World) -> World:
    """400 users: ten are gold, a sixteenth are members until some day, and all have a plan."""
    names = [f"u{n}" for n in range(USERS)]
    world.users(names[:10], plan="gold")
    world.users(names[10:], plan="free")
    for number, name in enumerate(names[:25]):
        world.change(name, vip_until=world.now + (number + 1) * 86_400_000)
    return world


def advised(world: World, part: str = "audience") -> Advice:
    (hint,) = [hint for hint in world.app.missing_indexes.advise() if hint.part == part]
    return hint


def examined(world: World, query: dict[str, Any]) -> int:
    """Return the number of documents that MongoDB examines for a find on users."""
    find = {"find": "users", "filter": query}
    answer = world.database.command("explain", find, verbosity="executionStats")
    return int(answer["executionStats"]["totalDocsExamined"])


def create(world: World, advice: Advice) -> None:
    assert advice.index is not None
    world.database.users.create_index([(key, 1) for key in advice.index])


def audience_filter(world: World, name: str) -> dict[str, Any]:
    compiled = world.app.campaign_cache.of(world.record(name)).compiled.audience.compiled
    return {"$and": [{"w": "shop"}, compiled.mongo(world.now).filter]}


def test_a_missing_index_is_named_with_documents_read_with_and_without_it(shop: World) -> None:
    shop.apply({"campaign": "golden", "audience": {"plan": "gold"}})
    advice = advised(shop)
    assert (advice.served_by, advice.users, advice.reads, advice.would_read) == (None, USERS, USERS, 10)
    assert advice.index == ("w", "a.plan", "_id")
    assert advice.text == (
        "audience: no index on users.a.plan; a MongoDB scan reads every user of shop (400); "
        "with {w: 1, a.plan: 1, _id: 1} about 10"
    )


def test_an_advised_index_serves_and_reads_as_estimated(shop: World) -> None:
    shop.apply({"campaign": "golden", "audience": {"all": [{"plan": "gold"}, {"age": {"exists": False}}]}})
    query = audience_filter(shop, "golden")
    assert examined(shop, query) == USERS
    create(shop, advised(shop))
    advice = advised(shop)
    assert (advice.served_by, advice.reads, advice.index) == ("w_1_a.plan_1__id_1", 10, None)
    assert advice.text == "audience: w_1_a.plan_1__id_1, about 10 users"
    assert examined(shop, query) == 10


def test_the_most_selective_of_several_conditions_is_advised(shop: World) -> None:
    shop.apply({"campaign": "c", "audience": {"all": [{"vip_until": {"within_next": "365d"}}, {"plan": "gold"}]}})
    assert advised(shop).index == ("w", "a.plan", "_id")
    shop.apply({"campaign": "c", "audience": {"all": [{"vip_until": {"within_next": "5d"}}, {"plan": "gold"}]}})
    advice = advised(shop)
    assert (advice.index, advice.would_read) == (("w", "a.vip_until", "_id"), 5)


def test_a_broad_audience_and_one_without_a_required_condition_get_no_index(shop: World) -> None:
    shop.apply({"campaign": "broad", "audience": {"plan": "free"}})
    shop.apply({"campaign": "either", "audience": {"any": [{"plan": "gold"}, {"age": 7}]}})
    advice = [hint for hint in shop.app.missing_indexes.advise() if hint.part == "audience"]
    assert [(hint.campaign, hint.served_by, hint.index) for hint in advice] == [
        ("broad", None, None),
        ("either", None, None),
    ]
    assert advice[0].text == "audience: no index would help; a MongoDB scan reads every user of shop (400)"


def test_everybody_is_read_by_key_range_and_a_list_by_its_index(shop: World) -> None:
    shop.apply({"campaign": "all"})
    advice = advised(shop)
    assert (advice.served_by, advice.reads) == ("_id_, all users", USERS)
    shop.app.imports("shop").lists.add("vips", [key["_id"] for key in shop.database.users.find().limit(3)])
    shop.apply({"campaign": "all", "audience": {"all": [{"list": "vips"}, {"plan": "free"}]}})
    advice = advised(shop)
    assert (advice.served_by, advice.reads) == ("the range of list vips", 3)


def test_the_advice_covers_crossing_sets_and_their_indexes(shop: World) -> None:
    audience = {"all": [{"vip_until": {"within_next": "5d"}}, {"event": {"name": "Seen", "within": "3d"}}]}
    shop.apply({"campaign": "timed", "audience": audience})
    advice = {hint.part: hint for hint in shop.app.missing_indexes.advise()}
    events = [hint for part, hint in advice.items() if part.startswith("crossing: Seen")]
    assert len(events) == 2
    assert {event.served_by for event in events} == {"events: workspace_name_time"}
    fields = [hint for part, hint in advice.items() if part.startswith("crossing: vip_until")]
    assert fields
    assert all(field.served_by is None and field.index == ("w", "a.vip_until", "_id") for field in fields)
    create(shop, fields[0])
    advice = {hint.part: hint for hint in shop.app.missing_indexes.advise()}
    assert all(advice[field.part].served_by == "w_1_a.vip_until_1__id_1" for field in fields)


def test_one_off_campaigns_have_no_crossing_sets_and_ended_ones_are_omitted(shop: World) -> None:
    shop.apply({"campaign": "once", "kind": "one_off", "audience": {"vip_until": {"within_next": "5d"}}})
    assert [hint.part for hint in shop.app.missing_indexes.advise()] == ["audience"]
    shop.launch("once")
    shop.settle()
    assert shop.state("once") == "finished"
    assert shop.app.missing_indexes.advise() == []


def test_rules_on_enrolled_users_are_read_by_key(shop: World) -> None:
    shop.apply(
        {
            "campaign": "full",
            "audience": {"plan": "gold"},
            "exit": {"when": {"event": {"name": "Seen", "within": "3d"}}},
            "goal": {"plan": "pro"},
            "messages": [{"name": "one", "when": {"age": {"gte": 18}}}],
        }
    )
    advice = {hint.part: hint.served_by for hint in shop.app.missing_indexes.advise()}
    assert advice == {
        "audience": None,
        "exit rule": "_id_, user_name_time",
        "goal": "_id_",
        "message one": "_id_",
    }


def test_a_share_is_estimated_from_a_sample(world: World) -> None:
    many = 3 * SAMPLE
    world.users([f"u{n}" for n in range(many)], plan="free")
    world.users([f"u{n}" for n in range(0, many, 10)], plan="gold")
    advisor = IndexAdvisor(world.database)
    population = advisor.users("shop")
    total = population.users
    assert (total, population.estimated) == (pytest.approx(many, rel=0.1), True)
    assert advisor.matching("shop", {"a.plan": "gold"}, total) == pytest.approx(many / 10, rel=0.25)
    assert 0 < advisor.matching("shop", {"a.plan": "none"}, total) <= 4
    assert advisor.matching("other", {"a.plan": "gold"}, 0) == 0


def test_each_named_query_has_its_index_after_a_migration(world: World) -> None:
    named = IndexAdvisor(world.database).named()
    assert {"users.read_range", "enrolments.due", "deliveries.outgoing", "runs.undecided", "lists.names"} <= {
        query.name for query in named
    }
    assert [query for query in named if query.problem] == []
    assert any(query.explained for query in named)


def test_a_named_query_without_its_index_is_reported(world: World) -> None:
    world.database.enrolments.drop_index("due")
    world.database.events.drop_indexes()
    wrong = {query.name: query.problem for query in IndexAdvisor(world.database).named() if query.problem}
    assert wrong["enrolments.first_due_campaign"] == "enrolments has no index due"
    assert wrong["events.fetch"] == "MongoDB scans all of events"
    world.database.events.drop()
    wrong = {query.name: query.problem for query in IndexAdvisor(world.database).named() if query.problem}
    assert wrong["events.fetch"] == "MongoDB uses no index of events"
