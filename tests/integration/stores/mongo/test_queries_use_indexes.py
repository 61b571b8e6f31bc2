"""Every command of every store method is explained, and none scans a collection.

A listener sees the commands as the driver sends them, so it also sees a query built elsewhere or without a name.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.monitoring import CommandListener, CommandStartedEvent

import engine.stores
from engine.domain.document import Document
from engine.query_metrics import MEASUREMENTS
from engine.stores.migrations import migrate_mongo
from engine.stores.mongo.enrolments import Enrolments
from engine.stores.mongo.query_plans import QUERIES, ExplainedQuery, Plan, explain
from tests.support.decision_cases import NOW, enrolment
from tests.support.store_calls import CALLS, STORES
from tests.support.store_filled import fill

MODULES = [
    importlib.import_module(module.name) for module in pkgutil.walk_packages(engine.stores.__path__, "engine.stores.")
]
NAMED: dict[str, str] = {name: index for module in MODULES for name, index in getattr(module, "NAMED", {}).items()}
ASKING = ("find", "aggregate", "count", "distinct", "update", "delete", "findAndModify")
OF_A_COMMAND = (
    "filter",
    "sort",
    "projection",
    "limit",
    "hint",
    "query",
    "pipeline",
    "cursor",
    "collation",
    "new",
    "let",
)


class Overhearing(CommandListener):
    """Keeps the commands that query documents."""

    def __init__(self) -> None:
        self.heard: list[Document] = []

    def started(self, event: CommandStartedEvent) -> None:
        """Keep the command in the form that `explain` accepts: one statement, nothing of the session."""
        name, command = event.command_name, event.command
        if name not in ASKING or "lsid" not in command:
            return
        head = {name: command[name], **{key: command[key] for key in OF_A_COMMAND if key in command}}
        if name in ("update", "delete"):
            parts = f"{name}s"
            self.heard += [{name: command[name], parts: [part]} for part in command[parts]]
        else:
            update = {"update": command["update"]} if name == "findAndModify" else {}
            self.heard.append(head | update)

    def succeeded(self, event: object) -> None:
        """Keep nothing."""

    def failed(self, event: object) -> None:
        """Keep nothing."""


@pytest.fixture(scope="module")
def overhearing() -> Overhearing:
    return Overhearing()


@pytest.fixture(scope="module")
def filled(services: Any, overhearing: Overhearing) -> Iterator[Database[Document]]:
    with MongoClient(services.mongo_url, event_listeners=[overhearing], tz_aware=True) as client:
        database: Database[Document] = client[f"test_{uuid.uuid4().hex[:16]}"]
        client.drop_database(database)
        migrate_mongo(database)
        fill(database)
        yield database
        client.drop_database(database)


def plans(database: Database[Document], commands: list[Document]) -> list[tuple[Document, Plan]]:
    return [(command, explain(database, ExplainedQuery("heard", "", command))) for command in commands]


@pytest.mark.parametrize("name", sorted(CALLS))
def test_a_store_call_scans_no_collection_and_uses_only_its_named_indexes(
    filled: Database[Document], overhearing: Overhearing, name: str
) -> None:
    store, method = name.split(".")
    made = STORES[store][1](filled)
    assert callable(getattr(made, method))
    overhearing.heard.clear()
    CALLS[name].make(made)
    commands, used = list(overhearing.heard), set()
    for command, plan in plans(filled, commands):
        assert not plan.scans, command
        assert plan.indexes <= CALLS[name].uses, command
        used |= plan.indexes
    assert bool(used) is bool(CALLS[name].uses) or not commands, "an index is named and none is used"
    if name in NAMED:
        assert set(NAMED[name].split(" or ")) & used, f"{name} says that it relies on {NAMED[name]}"


def test_every_public_method_of_every_store_is_called() -> None:
    methods = {
        f"{name}.{method}"
        for name, (kind, _) in STORES.items()
        for method, _ in inspect.getmembers(kind, inspect.isfunction)
        if not method.startswith("_")
    }
    assert methods == set(CALLS)


def test_every_store_with_a_collection_is_checked() -> None:
    """The methods not called combine others, measure the server (a read and a write by `_id`), or call another one."""
    known = {kind for kind, _ in STORES.values()}
    apart = {
        "RedisWakeup",
        "IndexAdvisor",
        "Derivation",
        "UserUpserts",
        "UserIndex",
        "UserStream",
        "LogIndex",
        "MongoProbe",
        "ClockOffsets",
        "Logs",
        "Stores",
        "StoredClock",
    }
    users = {
        kind
        for module in MODULES
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__ and "database" in inspect.signature(kind.__init__).parameters
    }
    assert {kind for kind in users if kind.__name__ not in apart} == known


def test_every_named_query_is_a_method_and_names_an_allowed_index() -> None:
    assert set(NAMED) <= set(CALLS)
    assert {name for name, index in NAMED.items() if not set(index.split(" or ")) <= CALLS[name].uses} == set()


def test_every_store_call_and_named_query_is_measured_by_name(filled: Database[Document]) -> None:
    for name, call in CALLS.items():
        call.make(STORES[name.split(".")[0]][1](filled))
    measured = {figure.name for figure in MEASUREMENTS.figures()}
    assert measured >= set(CALLS) | set(NAMED) | set(QUERIES)


@pytest.mark.parametrize("name", sorted(QUERIES))
def test_a_registered_query_uses_its_index_and_scans_no_collection(filled: Database[Document], name: str) -> None:
    plan = explain(filled, QUERIES[name])
    assert not plan.scans
    assert QUERIES[name].index in plan.indexes


def test_a_collection_scan_is_detected(filled: Database[Document], overhearing: Overhearing) -> None:
    overhearing.heard.clear()
    filled.users.find_one({"email": "nobody@example.org"})
    filled.users.update_many({"email": "nobody@example.org"}, {"$set": {"x": 1}})
    list(filled.users.aggregate([{"$match": {"email": "nobody@example.org"}}]))
    filled.users.find_one_and_update({"email": "nobody@example.org"}, {"$set": {"x": 1}})
    commands = list(overhearing.heard)
    assert [plan.scans for _, plan in plans(filled, commands)] == [True] * 4


def test_the_probe_for_due_enrolments_is_a_covered_query(filled: Database[Document], overhearing: Overhearing) -> None:
    for method in ("first_due_campaign", "due_ids"):
        overhearing.heard.clear()
        CALLS[f"enrolments.{method}"].make(STORES["enrolments"][1](filled))
        assert [plan.stages & {"FETCH"} for _, plan in plans(filled, list(overhearing.heard))] == [set()]


@pytest.mark.parametrize("method", ["enter_alike", "present"])
def test_the_users_with_enrolments_are_read_by_covered_queries(
    filled: Database[Document], overhearing: Overhearing, method: str
) -> None:
    overhearing.heard.clear()
    CALLS[f"enrolments.{method}"].make(STORES["enrolments"][1](filled))
    finds = [command for command in overhearing.heard if "find" in command]
    assert {"hint" in command for command in finds} == {True, False}, "both ways are asked for"
    assert [plan.stages & {"FETCH"} for _, plan in plans(filled, finds)] == [set()] * len(finds)


@pytest.mark.parametrize(("few", "index"), [(True, "due"), (False, "_id_")])
def test_due_enrolments_are_read_by_their_index_if_few_and_by_key_if_all(
    filled: Database[Document], overhearing: Overhearing, *, few: bool, index: str
) -> None:
    store = Enrolments(filled)
    people = [enrolment(name=f"due-{few}-{n}") for n in range(1_500)]
    uid = f"due{few}".lower()
    due = [
        replace(person, id=person.id.replace("c1", uid, 1), campaign=uid, due_at=None if few and n % 500 else NOW)
        for n, person in enumerate(people)
    ]
    store.enter(due)
    overhearing.heard.clear()
    enrolments = store.due(f"shop/{uid}/", "", f"shop/{uid}/g", NOW, 100)
    assert [person.id for person in enrolments] == sorted(person.id for person in due if person.due_at == NOW)[:100]
    assert [plan.indexes for _, plan in plans(filled, list(overhearing.heard))] == [{index}]
