"""Aggregates and windowed counts equal those of the stored events, in whatever order the events arrive."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo import MongoClient

from engine.catalogue.workspace_file import workspace_of
from engine.domain.changes import NewEvent
from engine.domain.keys import user_key
from engine.pipeline.importing.rows import derived_id
from engine.stores.mongo.event_aggregates import Derivation
from engine.stores.mongo.events import Events
from engine.stores.mongo.users import Users
from engine.yamlfile.nodes import parse

CATALOGUE: Final = workspace_of(
    parse(
        """
workspace: w
events:
  A: {value: {type: decimal, scale: 2}, note: string}
  B: {value: integer}
aggregates:
  n: {event: A, count: true}
  first: {event: A, first: true}
  last: {event: A, last: true}
  total: {event: A, sum: value}
  others: {event: B, sum: value}
""",
        "w.yaml",
    )
)
PREFIX: Final = count()


@pytest.fixture(scope="module")
def stores(mongo_client: MongoClient[dict[str, Any]]) -> Iterator[tuple[Users, Events, Derivation]]:
    name = "test_import_events_property"
    mongo_client.drop_database(name)
    users, events = Users(mongo_client[name]), Events(mongo_client[name])
    for index in Events.INDEXES:
        mongo_client[name]["events"].create_index(index["keys"], name=index["name"])
    yield users, events, Derivation(users, events, CATALOGUE)
    mongo_client.drop_database(name)


VALUE = st.integers(-(10**12), 10**12)


@st.composite
def happened(draw: st.DrawFn) -> list[NewEvent]:
    """Draw some events of three users; each has its own id, or the hash of its content."""
    made: list[NewEvent] = []
    for number in range(draw(st.integers(1, 12))):
        user, name, at = draw(st.sampled_from("xyz")), draw(st.sampled_from("AB")), draw(st.integers(-5, 20))
        properties = draw(st.sampled_from([{}, {"value": draw(VALUE)}, {"value": 1}]))
        event_id = f"id{number}" if draw(st.booleans()) else derived_id(user, name, at, properties)
        made.append(NewEvent(user, event_id, name, at, properties))
    return made


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[NewEvent], list[list[NewEvent]]]:
    """Draw the events, and batches that bring each of them at least once, in any order."""
    events = draw(happened())
    arriving = draw(st.permutations(events + draw(st.lists(st.sampled_from(events), max_size=8))))
    size = draw(st.integers(1, 7))
    return events, [list(arriving[at : at + size]) for at in range(0, len(arriving), size)]


class Window:
    name = "A"
    properties = ("value",)

    def __init__(self, width: int) -> None:
        self._width = width

    def mongo(self, as_of: int) -> dict[str, Any]:
        return {"n": "A", "t": {"$gt": as_of - self._width, "$lte": as_of}}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(told=deliveries())
def test_aggregates_and_windows_equal_a_computation_from_all_events(
    stores: tuple[Users, Events, Derivation], told: tuple[list[NewEvent], list[list[NewEvent]]]
) -> None:
    users, events, derivation = stores
    happened, batches = told
    keys = {user: user_key("w", f"{next(PREFIX)}-{user}") for user in "xyz"}
    for batch in batches:
        here = [event._replace(user=keys[event.user]) for event in batch]
        events.record(here)
        derivation.derive({event.user for event in here})
    for user, key in keys.items():
        mine = {event.id: event for event in happened if event.user == user}.values()
        document = users.get(key)
        if not mine:
            assert document is None
            continue
        assert document is not None
        orders = [event for event in mine if event.name == "A"]
        expected: dict[str, Any] = {
            "n": len(orders),
            "total": sum(int(str(event.properties.get("value", 0))) for event in orders),
            "others": sum(int(str(event.properties.get("value", 0))) for event in mine if event.name == "B"),
        }
        if orders:
            times = [event.at for event in orders]
            expected |= {"first": min(times), "last": max(times)}
        assert document["g"] == expected
        assert {name: row["n"] for name, row in document["e"].items()} == {
            name: len([event for event in mine if event.name == name]) for name in {event.name for event in mine}
        }
        facts = events.fetch([key], [Window(width) for width in (1, 5, 30)], 10)[key]
        counted = [len([e for e in orders if 10 - width < e.at <= 10]) for width in (1, 5, 30)]
        assert [len(fact) for fact in facts] == counted
